"""A shed of the base image as somebody works in it: sessions, in a real VM."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from shed.oci.store import LayoutStore
from support.kit import copy_store
from support.machine import Machine
from support.terminal import TIMEOUT, Terminal

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def machine(base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with one shed, ``dev``, of the base image."""
    root = tmp_path_factory.mktemp("machine")
    copy_store(base_store, root / "data/images")
    machine = Machine(root)
    try:
        machine.shed("create", "dev", "--image", "base", "--memory", "512M")
        yield machine
    finally:
        machine.end()


def test_a_session_outlives_its_client(machine: Machine) -> None:
    """Attach, work, be killed, attach again: all is as it was; a command started in it from outside has its window there."""
    terminal = Terminal()
    try:
        process = terminal.run("attach", "dev", env=machine.environment)
        terminal.read_until(b"$ ")
        terminal.type(b"export KEPT=here; tty\r")
        terminal.read_until(b"/dev/pts/")
        process.kill()
        process.wait(TIMEOUT)
    finally:
        terminal.close()
    (session,) = json.loads(machine.shed("--json", "sessions"))
    assert (session["shed"], session["name"], session["windows"]) == ("dev", "default", 1)
    said = json.loads(machine.shed("exec", "--json", "dev", "-S", "default", "--", "sh", "-c", "echo from outside; exec cat"))
    terminal = Terminal()
    try:
        process = terminal.run("attach", "dev", "-S", "default", env=machine.environment)
        terminal.read_until(b"from outside")
        terminal.type(b"\x02p")  # the window before
        terminal.read_until(b"KEPT=here")
        terminal.type(b"echo $KEPT$KEPT\r")
        terminal.read_until(b"herehere")
        terminal.type(b"\x02d")
        terminal.read_until(b"[detached (from session default)]")
        assert process.wait(TIMEOUT) == 0
        assert terminal.restored()
    finally:
        terminal.close()
    assert said["session"] == "default"
    assert machine.shed("sessions", "kill", "dev", "default") == "ended session default of dev\n"
    assert json.loads(machine.shed("--json", "sessions", "dev")) == []


def test_new_sessions(machine: Machine) -> None:
    """--new makes one, and refuses the name of one that is there."""
    machine.shed("exec", "dev", "--", "tmux", "new-session", "-d", "-s", "work")
    terminal = Terminal()
    try:
        process = terminal.run("attach", "dev", "--new", "-S", "work", env=machine.environment)
        terminal.read_until(b"hint: leave out --new to open it, or end it: shed sessions kill dev work")
        assert process.wait(TIMEOUT) == 1
        process = terminal.run("attach", "dev", "--new", env=machine.environment)
        terminal.read_until(b"$ ")
        assert len(json.loads(machine.shed("--json", "sessions", "dev"))) == 2
        terminal.type(b"exit\r")
        terminal.read_until(b"[exited]")
        assert process.wait(TIMEOUT) == 0
    finally:
        terminal.close()
    machine.shed("sessions", "kill", "dev", "work")
