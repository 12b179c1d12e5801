"""The real `shed exec` process against a scripted server: every byte, exit code, and every way it can go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.client import transport
from shed.client.address import parse
from shed.client.execution import Execution
from shed.client.sync.requests import request
from shed.errors import UnavailableError, UsageError
from shed.guest.protocol import DATA_FRAME, EXIT_CODE, STDERR, STDIN_EOF, exec_frame
from support.servers.scripted_server import Conversation, Script, ScriptedServer

SHED = [sys.executable, "-m", "shed.cli.main"]


def shed(*words: str | bytes, stdin: bytes = b"", timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
    """Run `shed` to its end."""
    return subprocess.run([*SHED, *words], input=stdin, capture_output=True, timeout=timeout, check=False)


def start(*words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start `shed`."""
    return subprocess.Popen([*SHED, *words], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_words_streams_and_exit_code(serve: Callable[[Script], ScriptedServer]) -> None:
    """Words arrive as they are, bytes that are not UTF-8 included; the two outputs stay apart; the exit code is the
    command's.
    """
    seen: list[bytes] = []

    def script(c: Conversation) -> None:
        seen.append(c.request.encode())
        seen.append(c.upgrade())
        c.say(DATA_FRAME, b"out\x00\xff")
        c.say(DATA_FRAME, b"")
        c.say(0x7F, b"from the future")
        c.say(STDERR, b"err")
        c.exit(42)

    words = ["a b", "'\"$HOME", "new\nline", "héé😀", "", "--json"]
    with serve(script):
        done = shed("exec", "-w", "/x", "-u", "me", "-e", "A=ü", "dev", "--", *words, b"\xff")
    assert (done.returncode, done.stdout, done.stderr) == (42, b"out\x00\xff", b"err")
    assert seen[0] == b"POST /api/sheds/dev/exec"
    request = json.loads(seen[1])
    assert request["cmd"][:-1] == words
    assert os.fsencode(request["cmd"][-1]) == b"\xff"
    assert (request["tty"], request["working_dir"], request["user"], request["env"]) == (False, "/x", "me", ["A=ü"])


def test_a_big_stream_both_ways(serve: Callable[[Script], ScriptedServer], tmp_path: Path) -> None:
    """64 MiB through an echo come back unchanged, through files and through pipes, and memory stays small."""
    data = os.urandom(1 << 20) * 64
    (tmp_path / "in").write_bytes(data)
    clients: list[subprocess.Popen[bytes]] = []
    peaks: list[int] = []

    def echo(c: Conversation) -> None:
        c.upgrade()
        while (frame := c.frame()) is not None and frame[0] != STDIN_EOF:
            c.say(DATA_FRAME, frame[1])
            c.taken(len(frame[1]))
        if clients:
            status = Path(f"/proc/{clients.pop().pid}/status").read_text()
            peaks.append(int(status.partition("VmHWM:")[2].split()[0]))
        c.exit(0)

    with serve(echo), (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as sink:
        clients.append(subprocess.Popen([*SHED, "exec", "dev", "--", "cat"], stdin=source, stdout=sink))
        assert clients[0].wait(60) == 0
        assert (tmp_path / "out").read_bytes() == data
        assert peaks[0] < 30 * 1024
        assert shed("exec", "dev", "--", "cat", stdin=data).stdout == data


def test_a_reader_who_leaves_ends_the_command(serve: Callable[[Script], ScriptedServer]) -> None:
    """As SIGPIPE would: exit code 141, no message, and the server sees the connection close."""
    left = threading.Event()

    def yes(c: Conversation) -> None:
        c.upgrade()
        try:
            while True:
                c.say(DATA_FRAME, b"y\n" * 8192)
        except OSError:
            left.set()

    with serve(yes):
        process = start("exec", "dev", "--", "yes")
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
        process.stderr.close()
    assert left.is_set()


def test_a_command_that_ends_without_reading_its_input(serve: Callable[[Script], ScriptedServer]) -> None:
    """Its exit code arrives although our input is open, or was cut short."""

    def end(c: Conversation) -> None:
        c.upgrade()
        c.exit(7)

    with serve(end):
        process = start("exec", "dev", "--", "true", stdin=subprocess.PIPE)
        assert process.wait(60) == 7
        process.communicate()
        assert shed("exec", "dev", "--", "true", stdin=bytes(1 << 22)).returncode == 7


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (b"", b"lost the connection to the command in dev"),
        (b"\x05\x00\x00\x00\x09cut", b"lost the connection"),
        (b"\x05\xff\xff\xff\xff", b"does not speak our protocol"),
        (b"\x04\x00\x00\x00\x02{}", b"does not speak our protocol"),
    ],
)
def test_a_stream_that_breaks(serve: Callable[[Script], ScriptedServer], end: bytes, message: bytes) -> None:
    """What came before is printed, then one sentence; 125, so that it is not taken for the command's own answer."""

    def script(c: Conversation) -> None:
        c.upgrade()
        c.drain()
        c.say(DATA_FRAME, b"some")
        c.socket.sendall(end)

    with serve(script):
        done = shed("exec", "dev", "--", "x")
    assert (done.returncode, done.stdout) == (125, b"some")
    assert done.stderr.startswith(b"error: ")
    assert message in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_refusal_of_the_server(serve: Callable[[Script], ScriptedServer]) -> None:
    """Its sentence and hint, exit code 125; as JSON when asked."""

    def script(c: Conversation) -> None:
        c.answer(
            404, b'{"error":{"code":"SHED_NOT_FOUND","message":"there is no shed \'dev\'","hint":"see: shed list"}}'
        )

    with serve(script):
        done = shed("exec", "dev", "--", "x")
        assert (done.returncode, done.stderr) == (125, b"error: there is no shed 'dev'\nhint: see: shed list\n")
        done = shed("exec", "--json", "dev", "--", "x")
        assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (125, "SHED_NOT_FOUND")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\n<html"]
)
def test_a_server_that_is_none(serve: Callable[[Script], ScriptedServer], answer: bytes) -> None:
    """One sentence, 125."""
    with serve(lambda c: c.socket.sendall(answer)):
        done = shed("exec", "dev", "--", "x")
    assert done.returncode == 125
    assert done.stderr.startswith(b"error: ")
    assert b"Traceback" not in done.stderr


def test_a_server_that_says_it_is_at_work_is_waited_for(
    serve: Callable[[Script], ScriptedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start takes as long as it takes; interim responses that are not known mean nothing."""
    monkeypatch.setattr(transport, "ANSWER_TIMEOUT", 1.5)
    began: list[str] = []

    def script(c: Conversation) -> None:
        assert c.headers["prefer"] == "processing"
        for state in (b"waiting", b"starting", b"other"):
            c.socket.sendall(b"HTTP/1.1 102 Processing\r\nShed-State: " + state + b"\r\n\r\n")
        time.sleep(2)
        c.upgrade()
        c.exit(0)

    with serve(script) as server:
        with Execution(parse(server.url), "dev", ["true"], on_start=lambda: began.append("start")) as execution:
            assert execution.run(stdin=None).code == 0
    assert began == ["start"]


@pytest.mark.parametrize("listening", [True, False])
def test_a_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, listening: bool) -> None:
    """Whether it takes connections or not: the error names its socket, and how to find out who it is."""
    monkeypatch.setattr(transport, "ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.2)
    path = tmp_path / "mute"
    with socket.socket(socket.AF_UNIX) as mute, contextlib.ExitStack() as queue:
        mute.bind(str(path))
        mute.listen(100 if listening else 0)
        if not listening:
            queue.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        calls: list[Callable[[], object]] = [
            lambda: Execution(parse(f"unix://{path}"), "dev", ["true"]),
            lambda: request(parse(f"unix://{path}"), "GET", "/api/info", timeout=0.2),
        ]
        for call in calls:
            with pytest.raises(UnavailableError, match=f"unix://{path} did not answer within 0.2 s") as caught:
                call()
            assert f"lsof {path}" in (caught.value.hint or "")


def test_a_command_that_could_not_start(serve: Callable[[Script], ScriptedServer]) -> None:
    """The guest's reason is shown; the code is the guest's."""

    def script(c: Conversation) -> None:
        c.upgrade()
        c.say(EXIT_CODE, b'{"code": 127, "error": "nope: no such file or directory"}')

    with serve(script):
        done = shed("exec", "dev", "--", "nope")
    assert done.returncode == 127
    assert done.stderr.startswith(b"error: dev: nope: no such file or directory\n")


def test_output_that_cannot_be_written(serve: Callable[[Script], ScriptedServer]) -> None:
    """A full disk is an error of ours, not of the command."""

    def script(c: Conversation) -> None:
        c.upgrade()
        c.say(DATA_FRAME, b"x")
        c.frame()

    with serve(script), Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*SHED, "exec", "dev", "--", "x"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 125
    assert b"No space left" in done.stderr


@pytest.mark.parametrize(
    ("closed", "out", "err"),
    [("<&-", b"out", b"err"), (">&-", b"", b"err"), ("2>&-", b"out", b""), ("<&- >&- 2>&-", b"", b"")],
)
def test_closed_descriptors(serve: Callable[[Script], ScriptedServer], closed: str, out: bytes, err: bytes) -> None:
    """A daemon may start us with none; the connection must not become one of them."""

    def script(c: Conversation) -> None:
        c.upgrade()
        assert c.drain() == []
        c.say(DATA_FRAME, b"out")
        c.say(STDERR, b"err")
        c.exit(3)

    with serve(script):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {closed}', "sh", *SHED, "exec", "dev", "--", "x"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (3, out, err)


def test_no_stdin_leaves_the_input_alone(serve: Callable[[Script], ScriptedServer]) -> None:
    """`while read; do shed exec -n ...` must not lose its lines."""

    def script(c: Conversation) -> None:
        c.upgrade()
        assert c.drain() == []
        c.exit(0)

    with serve(script):
        loop = 'while read -r x; do "$@" && echo "$x"; done'
        done = subprocess.run(
            ["sh", "-c", loop, "sh", *SHED, "exec", "-n", "dev", "x"],
            input=b"1\n2\n3\n",
            capture_output=True,
            check=False,
        )
    assert done.stdout == b"1\n2\n3\n"


def test_frames_come_in_pieces(serve: Callable[[Script], ScriptedServer]) -> None:
    """However slowly: the rest of a frame is waited for, and no byte of it is taken for another."""

    def script(c: Conversation) -> None:
        c.upgrade()
        for byte in exec_frame(DATA_FRAME, b"slow\x05\0\0") + exec_frame(STDERR, b"err"):
            time.sleep(0.06)  # in all a second within frames
            c.socket.sendall(bytes([byte]))
        c.exit(4)

    with serve(script):
        done = shed("exec", "dev", "--", "x")
    assert (done.stdout, done.stderr, done.returncode) == (b"slow\x05\0\0", b"err", 4)


def test_a_command_cannot_hold_nul() -> None:
    """A program cannot even pass one to ours; who calls the library is told before anything is sent."""
    with pytest.raises(UsageError, match="NUL"):
        Execution(parse("unix:///nowhere/s.sock"), "dev", ["echo", "a\0b"])


def test_a_socket_with_a_long_path(tmp_path: Path) -> None:
    """Unix sockets take 107 bytes; folders do not know that."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()

    def script(c: Conversation) -> None:
        c.upgrade()
        c.exit(5)

    with ScriptedServer(tmp_path / "s", script):
        (tmp_path / "s").rename(folder / "s")
        assert shed("-s", f"unix://{folder}/s", "exec", "dev", "--", "x").returncode == 5


def test_a_program_with_many_open_files_runs_commands(serve: Callable[[Script], ScriptedServer]) -> None:
    """Descriptors have numbers above 1023 then, which select(2) does not know."""

    def script(c: Conversation) -> None:
        c.upgrade()
        c.say(DATA_FRAME, b"out")
        c.exit(0 if c.drain() == [(DATA_FRAME, b"in")] else 1)

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, limits[1]))
    with contextlib.ExitStack() as held, serve(script) as server:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        for _ in range(1100):
            held.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        (stdin, keys), (shown, stdout) = os.pipe(), os.pipe()
        for fd in (stdin, shown, stdout):
            held.callback(os.close, fd)
        os.write(keys, b"in")
        os.close(keys)
        waited: list[str] = []
        with Execution(parse(server.url), "dev", ["cat"], on_wait=lambda: waited.append("a second")) as execution:
            assert min(stdin, stdout, execution._socket.fileno()) > 1023
            assert execution.run(stdin=stdin, stdout=stdout).code == 0
        assert os.read(shown, 100) == b"out"
