"""How VMs get control groups, on hosts of every kind: a tree of files stands for a host, and is as strict as the
kernel's is.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from jeepney import DBusAddress, HeaderFields, Message, Parser, new_error, new_method_return, new_signal

from shed.backends.base import Disk, Machine
from shed.backends.qemu import QemuBackend, budget, command, groups
from shed.backends.qemu.groups import Groups, Way
from shed.config.paths import Paths
from shed.errors import BackendError

BUDGET = budget.plan(2, 256, "kvm")
NAME = "dev-0f0c9a51"


def host(
    root: Path, controllers: str = "cpuset cpu io memory pids", *, systemd: bool = False, socket: str = ""
) -> Path:
    """Make the files by which a host is known: one tree of version 2, systemd, and the socket by which it is
    reached.
    """
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cgroup.controllers").write_text(f"{controllers}\n")
    (root / "sys/fs/cgroup/cgroup.subtree_control").touch()
    if systemd:
        (root / "run/systemd/system").mkdir(parents=True)
    if socket:
        (root / socket).parent.mkdir(parents=True, exist_ok=True)
        (root / socket).touch()
    return root


def own_group(root: Path, group: str) -> None:
    """Have the server itself be in a group."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"0::{group}\n")


class Manager(threading.Thread):
    """A systemd's end of the talk, and a bus's: it notes what is asked, and answers; of what systemd then does, it does
    nothing.

    It is strict: who calls over a bus without having said Hello is hung up on, as by a bus.
    """

    def __init__(self, address: Path, refusal: str = "") -> None:
        super().__init__()
        self.asked: list[Message] = []
        self._refusal = refusal
        self._bus = "bus" in address.name
        address.parent.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen()

    def run(self) -> None:
        with self._listener, self._listener.accept()[0] as sock:
            assert sock.recv(1) == b"\0"
            assert sock.recv(1024).startswith(b"AUTH EXTERNAL ")
            sock.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
            received = b""
            while not received.startswith(b"BEGIN\r\n"):
                received += sock.recv(1024)
            parser = Parser()
            parser.add_data(received.removeprefix(b"BEGIN\r\n"))
            for serial in range(1, 9):
                while (message := parser.get_next_message()) is None:
                    if not (data := sock.recv(4096)):
                        return
                    parser.add_data(data)
                member = message.header.fields[HeaderFields.member]
                if self._bus and serial == 1 and member != "Hello":
                    return
                self.asked.append(message)
                if member == "Hello":
                    answer = new_method_return(message, "s", (":1.7",))
                elif self._refusal:
                    answer = new_error(message, "org.freedesktop.systemd1.Refused", "s", (self._refusal,))
                else:
                    answer = new_method_return(message, "o", ("/org/freedesktop/systemd1/job/7",))
                sock.sendall(new_signal(DBusAddress("/x", interface="x.y"), "Noise").serialise(serial=100 + serial))
                sock.sendall(answer.serialise(serial=serial))


def test_the_first_way_that_works_is_taken(tmp_path: Path) -> None:
    """The machine's systemd for root, the user's for a user; the files for root alone, and where systemd does not
    run.
    """
    for number, place in enumerate(("run/dbus/system_bus_socket", "run/systemd/private")):
        assert groups.find(uid=0, root=host(tmp_path / f"a{number}", systemd=True, socket=place)).way is Way.SYSTEM
    for number, place in enumerate(("run/user/1000/bus", "run/user/1000/systemd/private")):
        root = host(tmp_path / f"b{number}", systemd=True, socket=place)
        own_group(root, "/user.slice/user-1000.slice/user@1000.service/app.slice/shed-server.service")
        assert groups.find(uid=1000, root=root).way is Way.USER
    assert groups.find(uid=0, root=host(tmp_path / "c")).way is Way.FILES
    assert groups.find(uid=1000, root=host(tmp_path / "d")).way is Way.NONE


def test_a_vm_does_not_end_when_its_user_logs_out(tmp_path: Path) -> None:
    """A user's systemd does, so VMs of a server that was started by hand get no scope of it, unless it stays."""
    root, uid = host(tmp_path, systemd=True, socket=f"run/user/{(me := os.getuid() or 65534)}/bus"), me
    own_group(root, f"/user.slice/user-{uid}.slice/session-3.scope")
    found = groups.find(uid=uid, root=root)
    assert (found.way, "logs out" in found.reason, found.hint) == (
        Way.NONE,
        True,
        f"have it stay: loginctl enable-linger {uid}",
    )
    (root / "var/lib/systemd/linger").mkdir(parents=True)
    (root / "var/lib/systemd/linger" / pwd.getpwuid(uid).pw_name).touch()
    assert groups.find(uid=uid, root=root).way is Way.USER


def test_a_host_without_says_why(tmp_path: Path) -> None:
    """Version 1, controllers that are missing, a user whom no systemd serves: a sentence and what to do."""
    (tmp_path / "old/sys/fs/cgroup/memory").mkdir(parents=True)
    old = groups.find(uid=0, root=tmp_path / "old")
    assert (old.way, "version 2" in old.reason, "unified_cgroup_hierarchy" in old.hint) == (Way.NONE, True, True)
    poor = groups.find(uid=0, root=host(tmp_path / "poor", "hugetlb"))
    assert (poor.way, poor.reason.endswith("memory and pids")) == (Way.NONE, True)
    alone = groups.find(uid=1000, root=host(tmp_path / "alone", systemd=True))
    assert (alone.way, "enable-linger 1000" in alone.hint) == (Way.NONE, True)
    with pytest.raises(BackendError, match="no systemd is reached for user 1000") as caught:
        alone.place(1, NAME, BUDGET)
    assert caught.value.code == "NO_CONTROL_GROUP"


@pytest.mark.parametrize("place", ["run/user/{uid}/bus", "run/user/{uid}/systemd/private"])
def test_systemd_is_asked_for_a_scope_with_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Every property; over a bus, or without one; a refusal ends in one error that has systemd's words."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    root = host(tmp_path / ("long" * 30), systemd=True)
    (root / "proc/42").mkdir(parents=True)
    (root / "proc/42/cgroup").write_text("0::/user.slice\n")
    address = root / place.format(uid=1000)
    address.parent.mkdir(parents=True)
    monkeypatch.chdir(address.parent)  # a socket's path has 108 bytes at most
    manager = Manager(Path(address.name), refusal="Unit exists already")
    manager.start()
    try:
        with pytest.raises(BackendError, match="Unit exists already") as caught:
            Groups(Way.USER, root=root).place(42, NAME, BUDGET)
    finally:
        manager.join(timeout=60)
    assert caught.value.code == "NO_CONTROL_GROUP"
    unit, mode, properties, aux = manager.asked[-1].body
    assert (unit, mode, aux) == (f"shed-{NAME}.scope", "fail", [])
    assert (
        dict(properties).items()
        >= {
            "PIDs": ("au", [42]),
            "Slice": ("s", "shed.slice"),
            "MemoryMax": ("t", BUDGET.memory_bytes),
            "MemorySwapMax": ("t", BUDGET.swap_bytes),
            "TasksMax": ("t", 258),
            "CPUQuotaPerSecUSec": ("t", 3_000_000),
            "CPUWeight": ("t", 100),
            "IOWeight": ("t", 100),
        }.items()
    )


def _own_hierarchy() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and options.startswith("rw"):
            return Path(place)
    pytest.skip("no cgroup hierarchy of version 2 is mounted here")


@pytest.mark.root
def test_a_process_is_moved_in_a_real_hierarchy(tmp_path: Path) -> None:
    """The kernel has it in the group, which stays while it runs, and goes when it has ended."""
    top = _own_hierarchy()
    parent = top / f"shed-test-{os.getpid()}"
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        groups._place_by_files(parent, sleeper.pid, NAME, BUDGET)
        assert groups.group_of(sleeper.pid) == f"/{parent.name}/{NAME}"
        groups._remove_empty(parent)
        assert (parent / NAME).is_dir()
    finally:
        sleeper.kill()
        sleeper.wait()
        groups._remove_empty(parent)
        assert not (parent / NAME).exists()
        parent.rmdir()


def machine(tmp_path: Path) -> Machine:
    (tmp_path / "state").mkdir()
    return Machine("dev", 1, 128, Path("/k"), Path("/i"), (Disk(Path("/d"), read_only=True),), tmp_path / "state")


def test_a_vm_without_a_group_is_refused_or_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As limits.control_groups says: `require` fails closed, `auto` warns once, `never` does not ask."""
    monkeypatch.setattr(groups, "find", lambda: Groups(Way.NONE, "there are none here"))
    sleeper = subprocess.Popen(["sleep", "600"])
    vm, found = machine(tmp_path), command.Host(Path("/qemu"), "tcg", "0f0c9a51-7e0a")
    try:
        with pytest.raises(BackendError, match="there are none here"):
            QemuBackend(Paths(tmp_path), control_groups="require").holding(vm, found)(sleeper.pid)
        QemuBackend(Paths(tmp_path), control_groups="never").holding(vm, found)(sleeper.pid)
        assert "there are none here" not in caplog.text
        auto = QemuBackend(Paths(tmp_path))
        auto.holding(vm, found)(sleeper.pid)
        auto.holding(vm, found)(sleeper.pid)
        assert caplog.text.count("there are none here") == 1
    finally:
        sleeper.send_signal(signal.SIGKILL)
        sleeper.wait()
