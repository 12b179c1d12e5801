"""Feed a command through a pipe while its output comes back: nothing is held in memory."""

import threading
from typing import BinaryIO

from shed import Client


def feed(pipe: BinaryIO) -> None:
    with pipe:
        pipe.writelines(b"%d\n" % number for number in range(100_000))


with Client().create() as shed, shed.popen("sort -rn") as process:
    threading.Thread(target=feed, args=(process.stdin,)).start()
    print("largest:", process.stdout.readline().decode().strip())
    print("lines after it:", sum(1 for _ in process.stdout))
