"""The real `shed exec` on a real pseudo-terminal: raw mode comes and goes, sizes and keys arrive, nothing is left
behind.
"""

from __future__ import annotations

import json
import os
import signal
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.guest.protocol import DATA_FRAME, RESIZE
from support.servers.scripted_server import Conversation, Script, ScriptedServer
from support.tools.terminal import TIMEOUT, Terminal


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal of 31 lines and 97 columns."""
    made = Terminal()
    yield made
    made.close()


def test_keys_sizes_and_the_way_back(serve: Callable[[Script], ScriptedServer], terminal: Terminal) -> None:
    """Ctrl-C, ctrl-Z and ctrl-D are bytes for the command; it learns size and type of the terminal; afterwards all is
    as before.
    """
    requests: list[dict[str, object]] = []
    keys: list[bytes] = []

    def script(c: Conversation) -> None:
        requests.append(json.loads(c.upgrade()))
        c.say(DATA_FRAME, b"ready\r\n")
        while b"".join(keys) != b"a\x03\x1a\x04\r":
            frame = c.frame()
            assert frame is not None
            assert frame[0] == DATA_FRAME
            keys.append(frame[1])
        c.say(DATA_FRAME, b"now")
        assert c.frame() == (RESIZE, b'{"rows":50,"cols":120}')
        c.exit(9)

    with serve(script):
        process = terminal.run("exec", "dev", "--", "bash")
        assert terminal.read_until(b"ready\r\n") == b"ready\r\n"
        assert terminal.raw()
        terminal.type(b"a\x03\x1a\x04\r")
        terminal.read_until(b"now")
        terminal.resize(50, 120)
        assert process.wait(TIMEOUT) == 9
    assert terminal.restored()
    assert (requests[0]["tty"], requests[0]["rows"], requests[0]["cols"]) == (True, 31, 97)
    assert "TERM=xterm-256color" in requests[0]["env"]  # type: ignore[operator]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_from_outside_restores_the_terminal(
    serve: Callable[[Script], ScriptedServer], terminal: Terminal, number: signal.Signals
) -> None:
    """Who ends `shed` gets that, and the shell a terminal it can use."""
    left = threading.Event()

    def script(c: Conversation) -> None:
        c.upgrade()
        c.say(DATA_FRAME, b"ready")
        assert c.frame() is None
        left.set()

    with serve(script):
        process = terminal.run("exec", "dev", "--", "bash")
        terminal.read_until(b"ready")
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 128 + number
    assert left.is_set()
    assert terminal.restored()


def test_a_lost_connection_restores_the_terminal(serve: Callable[[Script], ScriptedServer], terminal: Terminal) -> None:
    """The message comes when the terminal is usable again."""

    def script(c: Conversation) -> None:
        c.upgrade()
        c.say(DATA_FRAME, b"ready")

    with serve(script):
        process = terminal.run("exec", "dev", "--", "bash")
        terminal.read_until(b"error:\x1b[0m lost the connection to the command in dev\r\n")
        assert process.wait(TIMEOUT) == 125
    assert terminal.restored()


def test_a_stopped_and_continued_shed_is_raw_again(
    serve: Callable[[Script], ScriptedServer], terminal: Terminal
) -> None:
    """A shell that took the terminal meanwhile has changed its mode."""

    def script(c: Conversation) -> None:
        c.upgrade()
        c.say(DATA_FRAME, b"ready")
        frame = c.frame()
        assert frame is not None
        assert frame[0] == RESIZE
        c.exit(0)

    with serve(script):
        process = terminal.run("exec", "dev", "--", "bash")
        terminal.read_until(b"ready")
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        termios.tcsetattr(terminal.line, termios.TCSANOW, terminal.before)
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(TIMEOUT) == 0
    assert terminal.restored()


@pytest.mark.parametrize(
    ("words", "captured", "tty"),
    [([], False, True), ([], True, False), (["-t"], True, True), (["-T"], False, False)],
)
def test_who_gets_a_terminal(
    serve: Callable[[Script], ScriptedServer], terminal: Terminal, words: list[str], captured: bool, tty: bool
) -> None:
    """When our input and output are one; captured output must not get carriage returns; -t and -T overrule."""
    requests: list[dict[str, object]] = []

    def script(c: Conversation) -> None:
        requests.append(json.loads(c.upgrade()))
        c.exit(0)

    with serve(script), Path("/dev/null").open("wb") as null:
        process = terminal.run("exec", *words, "dev", "x", stdout=null.fileno() if captured else None)
        assert process.wait(TIMEOUT) == 0
    assert requests[0]["tty"] is tty


def test_console_is_a_login_shell(serve: Callable[[Script], ScriptedServer], terminal: Terminal) -> None:
    """No command: the guest chooses the user's shell."""
    requests: list[dict[str, object]] = []

    def script(c: Conversation) -> None:
        requests.append(json.loads(c.upgrade()))
        c.exit(0)

    with serve(script):
        assert terminal.run("console", "dev").wait(TIMEOUT) == 0
    assert (requests[0]["cmd"], requests[0]["tty"]) == ([], True)


def test_a_shed_that_must_start_first_is_waited_for_visibly(
    serve: Callable[[Script], ScriptedServer], terminal: Terminal
) -> None:
    """After a second of silence the user learns why; ctrl-C still works then."""

    def script(c: Conversation) -> None:
        assert c.socket.recv(1) == b""

    with serve(script):
        process = terminal.run("exec", "dev", "--", "bash")
        terminal.read_until(b"waiting for dev...\r\n")
        assert not terminal.raw()
        terminal.type(b"\x03")
        terminal.read_until(b"interrupted")
        assert process.wait(TIMEOUT) == 130


def test_delete_asks_on_a_terminal(serve: Callable[[Script], ScriptedServer], terminal: Terminal) -> None:
    """No is the default and does nothing; yes goes ahead."""
    seen: list[str] = []

    def script(c: Conversation) -> None:
        seen.append(c.request)
        c.answer(200, b'{"name":"dev"}')

    with serve(script):
        process = terminal.run("delete", "dev")
        terminal.read_until(b" and everything in it? [y/N] ")
        terminal.type(b"\n")
        terminal.read_until(b"Cancelled.")
        assert process.wait(TIMEOUT) == 0
        assert seen == []
        process = terminal.run("delete", "dev")
        terminal.read_until(b"[y/N] ")
        terminal.type(b"y\n")
        terminal.read_until(b"deleted dev")
        assert process.wait(TIMEOUT) == 0
    assert seen == ["DELETE /api/sheds/dev?force=true"]


def test_progress_is_one_live_line(serve: Callable[[Script], ScriptedServer], terminal: Terminal) -> None:
    """It is drawn over, cut to the width, and gone at the end; the result stays."""

    def script(c: Conversation) -> None:
        c.begin_events()
        c.event("progress", json.dumps({"phase": "vm", "message": "starting " + "x" * 200}))
        c.event("progress", json.dumps({"phase": "", "message": "slow disk", "warning": True}))
        c.event("complete", json.dumps({"name": "dev", "timings": {"vm": 1500.0}}))

    with serve(script):
        process = terminal.run("create", "dev", "-v")
        shown = terminal.read_until(b"vm     1.5 s")
        assert process.wait(TIMEOUT) == 0
    text = shown.decode()
    assert "warning: slow disk\r\n" in text
    assert "\r\x1b[Jcreated dev in 1.5 s\r\n" in text
    assert max(len(part) for part in text.replace("\x1b[J", "").replace("\n", "\r").split("\r")) < 97
