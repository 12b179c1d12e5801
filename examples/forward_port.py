"""A server in a shed, and a port of this machine that leads to it."""

import time
import urllib.request

from shed import Client, ConnectError

SERVE = ["/run/shed-runtime/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8000", "-h", "/tmp/site"]

with Client().create() as shed:
    shed.write_file("/tmp/site/index.html", "hello from the shed\n")
    with shed.popen(SERVE), shed.forward(8000) as port:
        while True:
            try:
                shed.connect(8000).close()
                break
            except ConnectError:  # it does not listen yet
                time.sleep(0.1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html") as answer:
            print(answer.read().decode(), end="")
