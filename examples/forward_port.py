"""A server in a shed, and a port of this machine that leads to it."""

import http.client
import time

from shed import Client, ConnectError

ANSWER = "printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello from the shed\\n'"
SERVE = ["/run/shed-runtime/bin/busybox", "nc", "-ll", "-p", "8000", "-e", "sh", "-c", ANSWER]

with Client().create() as shed, shed.popen(SERVE), shed.forward(8000) as port:
    while True:
        try:
            shed.connect(8000).close()
            break
        except ConnectError:  # it does not listen yet
            time.sleep(0.1)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/")
    print(connection.getresponse().read().decode(), end="")
