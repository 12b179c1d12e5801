"""A shed of the base image as somebody works in it: sessions, and files copied in and out, in a real VM."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.tools.terminal import SHED, TIMEOUT, Terminal
from support.vms.machine import Machine
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def machine(way: str, base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with one shed, ``dev``, of the base image."""
    root = tmp_path_factory.mktemp("machine")
    copy_store(base_store, root / "data/images")
    machine = Machine(root, way=way)
    try:
        machine.shed("create", "dev", "--image", "base")
        yield machine
    finally:
        machine.end()


def test_a_session_outlives_its_client(machine: Machine) -> None:
    """Attach, work, be killed, attach again: all is as it was; a command started in it from outside has its window
    there.
    """
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
    said = json.loads(
        machine.shed("exec", "--json", "dev", "-S", "default", "--", "sh", "-c", "echo from outside; exec cat")
    )
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


def test_copies_go_both_ways(machine: Machine, tmp_path: Path) -> None:
    """A tree arrives as it was, and comes back; its files are the shed's user's; with -a the owners stay."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/big").write_bytes(os.urandom(5_000_000))
    (source / "run").write_text("#!/bin/sh\necho it runs\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("sub/big")
    (source / "odd name; $HOME üñ").touch()
    machine.shed("cp", f"{source}/", "dev:")
    assert machine.shed("exec", "dev", "--", "/workspace/source/run") == "it runs\n"
    assert machine.shed("exec", "dev", "--", "stat", "-c", "%U %a", "source/run") == "shed 755\n"
    machine.shed("cp", "dev:source", str(tmp_path / "back"))
    assert same(source, tmp_path / "back")
    machine.shed("cp", "-a", f"{source}/run", "dev:/root/run")
    assert (
        machine.shed("exec", "-u", "root", "dev", "--", "stat", "-c", "%u", "/root/run")
        == f"{(source / 'run').stat().st_uid}\n"
    )
    said = json.loads(machine.shed("cp", "--json", "dev:/etc/hostname", str(tmp_path)))
    assert (said["action"], said["name"], said["source"]) == ("cp", "dev", "/etc/hostname")
    assert (tmp_path / "hostname").read_text() == "dev\n"


def same(one: Path, other: Path) -> bool:
    """Say whether two folders hold the same."""
    return subprocess.run(["diff", "-r", "--no-dereference", one, other], check=False).returncode == 0


def test_copies_as_streams_and_between_sheds(machine: Machine, tmp_path: Path) -> None:
    """Through standard output and input as tar, and from one place in a shed to another."""
    packed = subprocess.run(
        [*SHED, "cp", "dev:/etc/apt", "-"], env=machine.environment, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert "apt/sources.list.d" in archive.getnames()
    machine.shed("cp", "-", "dev:/tmp", stdin=packed)
    machine.shed("exec", "dev", "--", "diff", "-r", "/etc/apt", "/tmp/apt")
    machine.shed("cp", "dev:/tmp/apt/.", "dev:/tmp/again")
    machine.shed("exec", "dev", "--", "diff", "-r", "/etc/apt", "/tmp/again")


@pytest.mark.parametrize(("words", "complaint"), [
    (("dev:/missing", "."), ("dev: /missing: No such file or directory\nhint: see what there is: shed exec dev -- ls "
                            "/\n")),
    (("dev:/etc/shadow", "."), "dev: /etc/shadow: Permission denied\nhint: --user root may do everything"),
    (("/etc/hostname", "dev:/root/x"), "dev: /root/x: Permission denied"),
    (("/etc/hostname", "dev:/no/x"), "dev: /no/x: there is no folder /no"),
    (("/no/such", "dev:/tmp"), "/no/such: No such file or directory\nhint: see what there is: ls /no\n"),
    (("dev:/etc/hostname", "/no/such/"), "/no/such/: there is no such folder"),
    (("-", "dev:/no"), "dev: /no: a tar stream needs a folder to go to"),
    (("-", "dev:/tmp"), "dev: this is not a tar stream"),
    (("a", "b"), "neither of the two is in a shed"),
    (("nope:/x", "."), "there is no shed 'nope'"),
])  # fmt: skip
def test_what_cannot_be_copied(machine: Machine, words: tuple[str, str], complaint: str) -> None:
    """One sentence that names the path, from whichever end knows."""
    done = machine.try_shed("cp", *words)
    assert done.returncode in (1, 2)
    assert done.stderr.decode().startswith(f"error: {complaint}")


def test_a_copy_that_is_interrupted_leaves_nothing(machine: Machine) -> None:
    """No half file, and no process in the shed."""
    script = "head -c 1000000 /dev/zero > /tmp/whole; mkdir -p /tmp/into"
    machine.shed("exec", "dev", "--", "sh", "-c", script)
    with subprocess.Popen(
        [*SHED, "cp", "-", "dev:/tmp/into"], stdin=subprocess.PIPE, env=machine.environment, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        member = tarfile.TarInfo("half")
        member.size = 1 << 30
        process.stdin.write(member.tobuf() + bytes(3_000_000))
        process.stdin.flush()
        wait_until(lambda: machine.shed("exec", "dev", "--", "ls", "-A", "/tmp/into"))
        process.kill()
    wait_until(lambda: not machine.shed("exec", "dev", "--", "ls", "-A", "/tmp/into"))
    assert "shed.guest.archive" not in machine.shed("exec", "dev", "--", "ps", "-eo", "args")
