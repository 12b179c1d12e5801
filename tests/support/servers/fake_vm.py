"""A process that stands for a virtual machine: it outlives whoever started it, and runs an agent.

It takes from QEMU's launcher what QEMU takes: its folder, where its console goes, and a listening socket.  Every
connection is one stream: the port in decimal and a newline, then what the protocol says.  Port 0 answers the hello.
Arguments: an id, words that make it misbehave.
"""

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

from shed.backends.qemu.command import AGENT_FD, CONSOLE
from shed.guest.protocol import (
    CONTROL_REQUEST,
    CONTROL_RESPONSE,
    DATA_FRAME,
    EXEC_REQUEST,
    EXIT_CODE,
    SIGNAL,
    STDERR,
    STDIN_EOF,
    STDIN_TAKEN,
    STDOUT_CLOSED,
    FrameDecoder,
    exec_frame,
)

STATE = {"state": "hello"}
ARRIVED: dict[int, socket.socket] = {}
"""Connections that wait for the host, by number."""
NUMBERS = itertools.count()
CLOCK: list[float] = []
"""By how many seconds it is ahead, once it was asked for."""
MACHINE, PRCTL = os.getpid(), ctypes.CDLL(None).prctl


def main() -> None:
    """Serve until poweroff or a signal."""
    faults = set(sys.argv[2:])
    os.dup2(os.open(CONSOLE, os.O_WRONLY | os.O_APPEND), 1)
    listener = socket.socket(fileno=AGENT_FD)
    say("fake kernel: booted")
    if "kept" in faults:
        STATE["state"] = "frozen"
    if "die" in faults:
        os._exit(1)
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=serve, args=(stream, faults), daemon=True).start()


def say(text: str) -> None:
    """Write to the console."""
    os.write(1, text.encode() + b"\n")


def serve(stream: socket.socket, faults: set[str]) -> None:
    """Serve one stream."""
    with stream:
        port = int(read_line(stream))
        try:
            if port == 0 and "mute" not in faults:
                stream.sendall(b'{"agent":"fake","protocol":1}\n')
                stream.recv(1)
            elif port == 1024:
                execute(stream, faults)
            elif port == 1026:
                control(stream, faults)
            elif port == 1028:
                proxy(stream)
            elif port == 1029:
                listen(stream)
            else:
                stream.recv(1)
        except OSError:
            return


def frames(stream: socket.socket, decoder: FrameDecoder) -> tuple[int, bytes]:
    """Return the next frame; kind 0 at the end."""
    while (frame := decoder.frame()) is None:
        data = stream.recv(65536)
        if not data:
            return 0, b""
        decoder.feed(data)
    return frame


def control(stream: socket.socket, faults: set[str]) -> None:
    """Answer control requests."""
    decoder = FrameDecoder()
    while True:
        kind, payload = frames(stream, decoder)
        if kind != CONTROL_REQUEST:
            return
        request = json.loads(payload)
        answer: dict[str, object] = {"ok": True, **STATE}
        if request["op"] == "configure":
            if "no-root" in faults:
                STATE["state"] = "failed"
                answer = {"ok": False, "code": "SHED-INIT-03", "error": "mounting the root file system failed"}
            else:
                say(json.dumps(request))
                STATE["state"] = "ready"
                STATE["name"] = request["name"]
        if request["op"] == "freeze":
            if "restless" in faults:
                answer = {"ok": False, "code": "NOT_FROZEN", "error": "the processes do not stand still"}
            else:
                STATE["state"] = "frozen"
                answer["wakes"] = "old" not in faults
        if request["op"] == "thaw":
            say("thaw")
            STATE["state"] = "ready"
        if request["op"] == "fork":
            say(json.dumps(request))
            if "kept" not in faults or "lost" in faults:
                answer = {"ok": False, "code": "AGENT_ERROR", "error": "this machine does not stand still"}
            else:
                STATE["state"], STATE["name"] = "ready", request["name"]
                answer["hooks"] = ["10-late failed with status 1"] if "hooks" in faults else []
        if request["op"] == "wake":
            say(json.dumps(request))
            if "kept" not in faults or "lost" in faults:
                answer = {"ok": False, "code": "AGENT_ERROR", "error": "this machine does not stand still"}
            else:
                STATE["state"] = "ready"
        if request["op"] == "equip":
            say(json.dumps(request))
            if "old" in faults:
                answer = {"ok": False, "code": "UNKNOWN_OPERATION", "error": "this agent knows no operation 'equip'"}
        if request["op"] in {"mount", "unmount"}:
            say(json.dumps(request))
            answer["busy"] = "uses-folders" in faults and not request.get("force")
            if "cannot-mount" in faults:
                answer = {"ok": False, "code": "SHED-INIT-10", "error": "cannot mount"}
        if request["op"] == "clock":
            adjust = request.get("adjust", 0.0)
            CLOCK.append(CLOCK.pop() + adjust if CLOCK else -100.0 if "late" in faults else 0.0)
            answer["now"] = time.time() + CLOCK[0]
            say(f"clock {adjust:.0f}")
        stream.sendall(exec_frame(CONTROL_RESPONSE, json.dumps(answer).encode()))
        if request["op"] == "poweroff" and "stubborn" not in faults:
            os._exit(0)


def execute(stream: socket.socket, faults: set[str]) -> None:
    """Run one command; what is asked of a guest's own busybox, this machine's programs do."""
    decoder = FrameDecoder()
    kind, payload = frames(stream, decoder)
    assert kind == EXEC_REQUEST
    request = json.loads(payload)
    words, pipe = request["cmd"], subprocess.PIPE
    if words[0].endswith("/busybox"):
        words = ["false"] if "forgets" in faults else words[1:]
    if shutil.which(words[0]) is None:
        stream.sendall(
            exec_frame(EXIT_CODE, json.dumps({"code": 127, "error": f"{words[0]}: command not found"}).encode())
        )
        return
    given = dict(each.split("=", 1) for each in request.get("env", ()) if each.startswith(("SSH_", "HOOK")))
    env = {**os.environ, "TMPDIR": str(Path.cwd()), **given, **({"HOOK_TOOLS": "env"} if "HOOK_TOOLS" in given else {})}
    with subprocess.Popen(
        words,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=env,
        start_new_session=True,
        preexec_fn=end_with_the_machine,  # noqa: PLW1509  it takes no lock
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        lock, deaf = threading.Lock(), threading.Event()
        pumps = [
            threading.Thread(target=pump, args=(stream, lock, deaf, *way))
            for way in ((child.stdout, DATA_FRAME), (child.stderr, STDERR))
        ]
        threading.Thread(target=feed, args=(stream, lock, deaf, decoder, child), daemon=True).start()
        for thread in pumps:
            thread.start()
        for thread in pumps:
            thread.join()
        code = child.wait()
    how = {"code": code} if code >= 0 else {"code": 128 - code, "signal": -code}
    stream.sendall(exec_frame(EXIT_CODE, json.dumps(how).encode()))
    stream.shutdown(socket.SHUT_WR)


def end_with_the_machine() -> None:
    """Have this process, a command, killed when its machine is, as all that runs in a real one."""
    if PRCTL(1, signal.SIGKILL) or os.getppid() != MACHINE:
        os._exit(1)


def feed(
    stream: socket.socket,
    lock: threading.Lock,
    deaf: threading.Event,
    decoder: FrameDecoder,
    child: subprocess.Popen[bytes],
) -> None:
    """Carry standard input; a client that leaves kills the command."""
    assert child.stdin is not None
    taken = 0
    while True:
        try:
            kind, payload = frames(stream, decoder)
            if kind == DATA_FRAME:
                child.stdin.write(payload)
                child.stdin.flush()
                taken += len(payload)
                if taken > 4096:  # a small command never needs it
                    with lock:
                        stream.sendall(exec_frame(STDIN_TAKEN, taken.to_bytes(4, "big")))
                    taken = 0
            elif kind == STDIN_EOF:
                child.stdin.close()
            elif kind == STDOUT_CLOSED:
                deaf.set()
            elif kind == SIGNAL:
                os.killpg(child.pid, json.loads(payload)["signal"])
        except (OSError, ValueError):
            kind = 0
        if not kind:
            child.kill()
            return


def pump(stream: socket.socket, lock: threading.Lock, deaf: threading.Event, source: IO[bytes], kind: int) -> None:
    """Carry output; standard output until nobody reads it."""
    while data := os.read(source.fileno(), 65536):
        if kind == DATA_FRAME and deaf.is_set():
            source.close()
            return
        with lock:
            stream.sendall(exec_frame(kind, data))


def proxy(stream: socket.socket) -> None:
    """Port 7 echoes, 9 pours, 10 ends its side and then listens, 11 takes nothing; nothing else listens."""
    port = int(read_line(stream).split()[1])
    if port not in {7, 9, 10, 11}:
        stream.sendall(b"ERR connection refused\n")
        return
    stream.sendall(b"OK\n")
    if port == 9:
        try:
            while True:
                stream.sendall(bytes(65536))
        except OSError:
            say("nobody takes it")
        return
    if port == 10:
        stream.shutdown(socket.SHUT_WR)
    if port == 11:
        threading.Event().wait()
    while data := stream.recv(65536):
        if port == 10:
            say(data.decode())
        else:
            stream.sendall(data)
    if port == 7:
        stream.shutdown(socket.SHUT_WR)


def listen(stream: socket.socket) -> None:
    """Listen on a Unix socket for the host, as `shed.guest.listen` does, or carry a connection that came there."""
    words = read_line(stream).split()
    if words[0] == "ACCEPT":
        with ARRIVED.pop(int(words[1])) as connection:
            stream.sendall(b"OK\n")
            threading.Thread(target=carry, args=(stream, connection), daemon=True).start()
            carry(connection, stream)
        return
    assert words == ["LISTEN", "unix"]
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/agent")
        listener.listen()
        stream.sendall(f"OK {folder}/agent\n".encode())
        threading.Thread(target=arrive, args=(listener, stream), daemon=True).start()
        stream.recv(1)  # until the host ends it
        listener.shutdown(socket.SHUT_RDWR)


def arrive(listener: socket.socket, stream: socket.socket) -> None:
    """Tell the host of each connection that comes."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            number = next(NUMBERS)
            ARRIVED[number] = connection
            stream.sendall(b"%d\n" % number)


def carry(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes until one of the two ends; then the other one does."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def read_line(stream: socket.socket) -> str:
    """Return the next line."""
    line = b""
    while not line.endswith(b"\n"):
        line += stream.recv(1)
    return line.decode()


if __name__ == "__main__":
    main()
