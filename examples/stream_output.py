"""Read what a command prints while it runs."""

from shed import Client

COUNT = "for i in 1 2 3; do echo step $i; sleep 0.2; done"

with Client().create() as shed, shed.popen(COUNT, merge=True) as process:
    for line in process.stdout:
        print("->", line.decode().rstrip(), flush=True)
    print("exit code:", process.wait())
