"""The real `shed exec` process against a scripted server: signals, and commands that do not care for them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.guest.protocol import DATA_FRAME, SIGNAL, STDIN_WINDOW
from support.servers.scripted_server import Conversation, Script, ScriptedServer

SHED = [sys.executable, "-m", "shed.cli.main"]


def start(*words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start `shed`."""
    return subprocess.Popen([*SHED, *words], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_signals_reach_the_command(serve: Callable[[Script], ScriptedServer], number: signal.Signals) -> None:
    """With pipes the command decides what a signal means, and its answer is our exit code."""

    def script(c: Conversation) -> None:
        c.upgrade()
        assert c.drain() == []
        c.say(DATA_FRAME, b"ready")
        assert c.frame() == (SIGNAL, b'{"signal":%d}' % number)
        c.exit(128 + number)

    with serve(script):
        process = start("exec", "dev", "--", "sleep", "9")
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.communicate() == (b"", b"")


def test_a_signal_gets_past_input_that_nobody_reads(serve: Callable[[Script], ScriptedServer]) -> None:
    """Only a window of it is sent, so there is room behind it, and what the guest takes makes room for as much
    again.
    """
    sent: list[int] = []

    def window(c: Conversation) -> int:
        count = 0
        while count < STDIN_WINDOW:
            frame = c.frame()
            assert frame is not None
            assert frame[0] == DATA_FRAME
            count += len(frame[1])
        return count

    def script(c: Conversation) -> None:
        c.upgrade()
        sent.append(window(c))
        c.taken(STDIN_WINDOW)
        sent.append(window(c))
        c.say(DATA_FRAME, b"ready")
        assert c.frame() == (SIGNAL, b'{"signal":15}')
        c.exit(143)

    with serve(script), Path("/dev/zero").open("rb") as endless:
        process = start("exec", "dev", "--", "sleep", "9", stdin=endless.fileno())
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        process.terminate()
        assert process.wait(60) == 143
        process.communicate()
    assert sent == [STDIN_WINDOW, STDIN_WINDOW]


def test_three_interrupts_leave(serve: Callable[[Script], ScriptedServer]) -> None:
    """A command that ignores ctrl-C must not hold the user."""

    def script(c: Conversation) -> None:
        c.upgrade()
        c.say(DATA_FRAME, b"1")
        while (frame := c.frame()) is not None:
            if frame[0] == SIGNAL:
                c.say(DATA_FRAME, b"1")

    with serve(script):
        process = start("exec", "dev", "--", "stubborn")
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.read(1) == b"1"
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.communicate() == (b"", b"interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_second_request_to_end_is_the_last(serve: Callable[[Script], ScriptedServer], number: signal.Signals) -> None:
    """What comes twice at once counts once, as `timeout` sends it; who asks again does not wait for the command."""
    passed: list[tuple[int, bytes]] = []

    def script(c: Conversation) -> None:
        c.upgrade()
        assert c.drain() == []
        c.say(DATA_FRAME, b"1")
        while (frame := c.frame()) is not None:
            passed.append(frame)
            c.say(DATA_FRAME, b"1")

    with serve(script):
        process = start("exec", "dev", "--", "stubborn")
        assert process.stdout is not None
        for times in (2, 1):  # no more: while Python ends, it takes signals as who never asked for them
            assert process.stdout.read(1) == b"1"  # it is up; and then, it has acted on the first two
            time.sleep(0.6)
            for _ in range(times):
                process.send_signal(number)
        assert process.wait(60) == 128 + number
        process.communicate()
    assert passed == [(SIGNAL, b'{"signal":%d}' % number)]


@pytest.mark.parametrize("health", ["silent", "gone", "well"])
def test_a_command_that_was_told_to_end(serve: Callable[[Script], ScriptedServer], health: str) -> None:
    """Only a guest that does not answer is left: a command may take its time."""
    asked = threading.Event()

    def script(c: Conversation) -> None:
        if c.request == "GET /api/sheds/dev/health":
            if health == "silent":
                assert c.socket.recv(1) == b""
            else:
                c.answer(200, b"{}") if health == "well" else c.answer(
                    500, b'{"error":{"code":"AGENT_TIMEOUT","message":"no"}}'
                )
            asked.set()
            return
        c.upgrade()
        assert c.drain() == []
        c.say(DATA_FRAME, b"ready")
        assert c.frame() == (SIGNAL, b'{"signal":15}')
        if health == "well":
            assert asked.wait(60)
            c.exit(6)
        assert c.frame() is None

    with serve(script):
        process = start("exec", "dev", "--", "sleep", "9")
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        process.terminate()
        message = process.communicate(timeout=60)[1]
        assert (process.returncode, b"error: dev: the shed does not answer" in message) == (
            (6, False) if health == "well" else (143, True)
        )
