"""Commands with a terminal, run by the agent."""

from pathlib import Path

import pytest

from shed.guest import protocol as p
from support.guests.agent import Command, Host, run
from support.waiting import wait_until


def test_terminal(host: Host) -> None:
    """A terminal of the right size that is the controlling one; what is typed comes back."""
    command = Command(
        host, "sh", "-c", "tty; stty size; read line; echo got $line; exit 4", tty=True, rows=33, cols=101
    )
    command.until(b"33 101")
    command.send(p.DATA_FRAME, b"hello\r")
    result = command.wait()
    assert b"/dev/pts/" in result.stdout
    assert b"got hello\r\n" in result.stdout
    assert result.exit == {"code": 4}


def test_terminal_resize_and_interrupt(host: Host) -> None:
    """A resize arrives as SIGWINCH, the interrupt key as SIGINT."""
    command = Command(
        host,
        "sh",
        "-c",
        "trap 'stty size' WINCH; trap 'echo int; exit 6' INT; sleep 100 & echo up; while :; do wait; done",
        tty=True,
    )
    command.until(b"up")
    command.send(p.RESIZE, b'{"rows": 50, "cols": 132}')
    command.until(b"50 132")
    command.send(p.DATA_FRAME, b"\x03")
    assert command.wait().exit == {"code": 6}


def test_terminal_output_is_complete(host: Host) -> None:
    """Everything printed before the end arrives."""
    result = run(host, "sh", "-c", "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done", tty=True)
    assert result.stdout.count(b"\r\n") == 5000
    assert result.exit == {"code": 0}


def test_terminal_hangup(host: Host) -> None:
    """A client that goes away takes what runs on its terminal with it."""
    command = Command(host, "sh", "-c", "sleep 100 & echo $!; wait", tty=True)
    command.until(b"\n")
    pid = int(command.result.stdout.split()[0])
    command.stream.reset()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the child is gone")


@pytest.mark.root
def test_a_terminal_belongs_to_its_user(host: Host) -> None:
    """Otherwise programs could not open it again."""
    result = run(host, "sh", "-c", "stat -c %u $(tty); echo again > $(tty)", tty=True, user="daemon")
    assert result.stdout.split() == [b"1", b"again"]


def test_the_modes_of_a_terminal(host: Host) -> None:
    """As SSH numbers them (RFC 4254, 8): erase is ^H, no quit, no echo, UTF-8; unknown ones are skipped."""
    modes = [[3, 8], [2, 255], [53, 0], [42, 1], [128, 9600], [99, 1]]
    shown = run(host, "stty", "-a", tty=True, modes=modes).stdout
    for wanted in (b"erase = ^H", b"quit = <undef>", b" -echo ", b" iutf8"):
        assert wanted in shown
    assert "modes" in str(run(host, "true", tty=True, modes=[[1]]).exit["error"])
