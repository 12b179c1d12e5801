"""The jail around QEMU, from inside: a process with exactly its rights tries to reach everything of the host.

Twice: as a QEMU is held, and without the list of calls, so that the other walls show that they hold alone.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.backends.jail import plan
from shed.backends.jail.plan import FIRST_USER, Folder, inside
from shed.backends.qemu.confined import is_jailed
from shed.errors import BackendError
from support.guests.prisoner import Prisoner

ROOT = os.geteuid() == 0


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Prisoner]:
    """One that is held as QEMU is."""
    with Prisoner(tmp_path / "vm") as prisoner:
        yield prisoner


@pytest.fixture
def free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prisoner]:
    """One that may make every call that there is."""
    monkeypatch.setattr(plan, "filters", lambda *_, **__: [])
    with Prisoner(tmp_path / "vm") as prisoner:
        yield prisoner


def status(prisoner: Prisoner) -> dict[str, str]:
    """Return what the kernel says of a process, as seen from outside."""
    lines = Path(f"/proc/{prisoner.record.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_who_it_is(held: Prisoner) -> None:
    """No capability, none to be had, nobody's user where root can give one, and every namespace but the clock's."""
    seen = status(held)
    assert {seen[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    expected = FIRST_USER + held.record.pid if ROOT else os.geteuid()
    assert seen["Uid"].split() == seen["Gid"].split() == [str(expected)] * 4
    assert seen["Groups"].split() in ([], [str(os.getegid())])
    own, ours = (Path(f"/proc/{pid}/ns") for pid in (held.record.pid, "self"))
    same = {path.name for path in ours.iterdir() if path.readlink() == (own / path.name).readlink()}
    assert same == {"time", "time_for_children", *(["user"] if ROOT else [])}
    assert held.tries("os.getpid()") == "1"


def test_the_root_is_empty(held: Prisoner) -> None:
    """It holds libraries and the program; nothing can be made or changed there."""
    assert set(eval(held.tries("os.listdir('/')"))) <= {"usr", "lib", "lib64", "etc", "dev"}
    assert held.tries("os.listdir('/dev')") == "['null']"
    assert set(eval(held.tries("os.listdir('/etc')"))) <= {"ld.so.cache", "ld.so.conf"}
    for target in ("/new", "/usr/lib/new", "/dev/new", "/etc/ld.so.cache"):
        assert held.tries(f"os.open({target!r}, os.O_WRONLY | os.O_CREAT)") in {"EROFS", "EACCES"}, target


@pytest.mark.parametrize("walls", ["held", "free"])
def test_no_file_of_the_host(request: pytest.FixtureRequest, walls: str) -> None:
    """Not by any name, nor by going up: secrets, sockets, devices, homes, the server's own files."""
    prisoner: Prisoner = request.getfixturevalue(walls)
    places = [
        "/etc/passwd", "/etc/shadow", "/root", "/home", "/tmp", "/var", "/run", "/run/docker.sock", "/proc", "/sys",
        "/proc/1/root", "/proc/self/exe", "/dev/kvm", "/dev/mem", "/dev/vda", "/dev/net/tun", "/dev/fuse", "/dev/shm",
        "/boot", "/usr/bin/sh", "/usr/bin/su", "/usr/local", str(prisoner.folder), str(prisoner.folder / "vm.json"),
        str(prisoner.folder / "qmp.sock"), __file__,
    ]  # fmt: skip
    for place in places:
        assert prisoner.tries(f"os.open({place!r}, os.O_PATH)") == "ENOENT", place
        assert prisoner.tries(f"os.open('/../../../..' + {place!r}, os.O_PATH)") == "ENOENT", place
    assert prisoner.tries("os.getcwd()") == "'/'"
    assert prisoner.tries("os.open('..', os.O_PATH) and os.listdir('..') == os.listdir('/')") == "True"


def test_what_it_has_open(held: Prisoner) -> None:
    """What it was given: no folder, no file of the host, nothing of its launcher's."""
    assert held.tries("0") == "0"  # it has accepted us
    links = {int(path.name): str(path.readlink()) for path in Path(f"/proc/{held.record.pid}/fd").iterdir()}
    kinds = {number: link.partition(":")[0] for number, link in links.items()}
    assert kinds.pop(0) == os.devnull
    assert {kinds.pop(number) for number in (1, 2, 6)} == {"pipe"}
    assert kinds == {3: "socket", 5: "socket"}  # this connection, and the listener that it has not closed


@pytest.mark.parametrize("walls", ["held", "free"])
def test_no_other_process(request: pytest.FixtureRequest, walls: str) -> None:
    """None can be named, so none can be signalled; there is only itself."""
    prisoner: Prisoner = request.getfixturevalue(walls)
    for pid in (os.getpid(), os.getppid(), 2, prisoner.record.pid):
        assert prisoner.tries(f"os.kill({pid}, 0)") == "ESRCH", pid
    assert prisoner.tries("os.kill(-1, 0)") == "ESRCH"
    assert prisoner.tries("os.getppid()") == "0"


@pytest.mark.parametrize("walls", ["held", "free"])
def test_no_network(request: pytest.FixtureRequest, walls: str) -> None:
    """No service of this machine, on loopback or in the abstract namespace, none beyond it, no raw socket."""
    prisoner: Prisoner = request.getfixturevalue(walls)
    socketless = "ENOSYS" if walls == "held" else None
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as abstract:
        name = f"\0shed-test-{os.getpid()}"
        abstract.bind(name)
        abstract.listen()
        port = listener.getsockname()[1]
        for family, kind, address, because in (
            ("AF_INET", "SOCK_STREAM", ("127.0.0.1", port), {"ENETUNREACH", "EACCES"}),
            ("AF_INET", "SOCK_STREAM", ("192.0.2.1", 80), {"ENETUNREACH", "EACCES"}),
            ("AF_INET", "SOCK_DGRAM", ("192.0.2.1", 53), {"ENETUNREACH"}),
            ("AF_INET6", "SOCK_STREAM", ("::1", port), {"ENETUNREACH", "EADDRNOTAVAIL", "EACCES", "EAFNOSUPPORT"}),
            ("AF_UNIX", "SOCK_STREAM", name, {"ECONNREFUSED", "EPERM"}),
        ):
            found = prisoner.tries(f"socket.socket(socket.{family}, socket.{kind}).connect({address!r})")
            assert found == socketless or found in because, (family, address, found)
    packets = prisoner.tries("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)")
    assert packets == (socketless or "EPERM")


CALLS = {
    "ptrace": (101, "0, 1, 0, 0"), "mount": (165, "b'none', b'/', b'tmpfs', 0, None"), "umount2": (166, "b'/', 2"),
    "pivot_root": (155, "b'/', b'/'"), "chroot": (161, "b'/'"), "unshare": (272, "0x10000000"),
    "setns": (308, "0, 0"), "open_tree": (428, "-100, b'/', 1"), "fsopen": (430, "b'tmpfs', 0"),
    "mount_setattr": (442, "-100, b'/', 0, None, 0"), "setuid": (105, "0"), "setresuid": (117, "0, 0, 0"),
    "setgroups": (116, "0, None"), "capset": (126, "None, None"), "keyctl": (250, "0, -3, 1"),
    "add_key": (248, "b'user', b'a', b'b', 1, -3"), "request_key": (249, "None, None, None, 0"),
    "bpf": (321, "0, None, 0"), "perf_event_open": (298, "None, 0, -1, -1, 0"), "io_uring_setup": (425, "1, None"),
    "userfaultfd": (323, "0"), "init_module": (175, "None, 0, b''"), "finit_module": (313, "0, b'', 0"),
    "kexec_load": (246, "0, 0, None, 0"), "reboot": (169, "0, 0, 0, None"), "swapon": (167, "b'/', 0"),
    "acct": (163, "None"), "sethostname": (170, "b'x', 1"), "settimeofday": (164, "None, None"), "iopl": (172, "3"),
    "ioperm": (173, "0, 1, 1"), "syslog": (103, "3, None, 0"), "process_vm_readv": (310, "1, None, 0, None, 0, 0"),
    "pidfd_open": (434, "1, 0"), "pidfd_getfd": (438, "0, 0, 0"), "kcmp": (312, "1, 1, 0, 0, 0"),
    "open_by_handle_at": (304, "0, None, 0"), "name_to_handle_at": (303, "-100, b'/', None, None, 0"),
    "shmget": (29, "1, 4096, 0o1666"), "semget": (64, "1, 1, 0o1666"), "msgget": (68, "1, 0o1666"),
    "mq_open": (240, "b'a', 0o102, 0o600, None"), "memfd_secret": (447, "0"), "vfork": (58, ""), "fork": (57, ""),
    "clone3": (435, "None, 0"), "mknod": (133, "b'/x', 0o20666, 0x103"), "personality": (135, "0x40000"),
    "vhangup": (153, ""), "quotactl": (179, "0, None, 0, None"), "fanotify_init": (300, "0, 0"),
    "inotify_init1": (294, "0"), "socket": (41, "1, 1, 0"), "connect": (42, "0, None, 0"), "bind": (49, "0, None, 0"),
    "setpriority": (141, "0, 0, -20"), "sched_setaffinity": (203, "0, 8, None"),
    "landlock_create_ruleset": (444, "None, 0, 1"), "truncate": (76, "b'/x', 0"),
}  # fmt: skip


def test_calls_that_there_are_not(held: Prisoner) -> None:
    """Namespaces, mounts, modules, keys, other processes, new sockets and processes: the calls do not exist."""
    for name, (number, arguments) in CALLS.items():
        assert held.tries(f"call({number}, {arguments})") == "ENOSYS", name
    for flags in (17, 0x10000000 | 17, 0x20000 | 17, 0x40000000 | 17, 0x10000000 | 0x10000):
        assert held.tries(f"call(56, {flags}, 0, 0, 0, 0)") == "EPERM", hex(flags)
    for option in (1, 8, 26, 28, 35, 47, 0x59616D61):
        assert held.tries(f"call(157, {option}, 0, 0, 0, 0)") == "EPERM", option


def test_what_takes_a_right_without_the_list_of_calls(free: Prisoner) -> None:
    """It has none: who gets around the list of calls can still mount, own, load and control nothing."""
    for name in ("mount", "umount2", "pivot_root", "chroot", "reboot", "swapon", "acct", "sethostname",
                 "setgroups", "fsopen", "open_tree", "vhangup"):  # fmt: skip
        number, arguments = CALLS[name]
        assert free.tries(f"call({number}, {arguments})") == "EPERM", name
    assert free.tries("os.setuid(0)") == ("EPERM" if ROOT else "EINVAL")
    assert free.tries("call(29, 1, 4096, 0)") == "ENOENT"  # System V memory of the host


def test_a_new_user_namespace_gives_nothing(free: Prisoner) -> None:
    """Not even one in which it has all capabilities lets it mount, or see the host's network."""
    assert free.tries("call(272, 0x10000000 | 0x20000)") in {"0", "EPERM", "ENOSPC"}
    assert free.tries("call(165, b'none', b'/', b'tmpfs', 0, None)") == "EPERM"
    assert free.tries("call(165, b'/usr', b'/dev', None, 4096, None)") == "EPERM"


def test_a_folder_to_be_written(tmp_path: Path) -> None:
    """What is made there belongs to the folder's owner; nothing beside or above it is there, by links neither."""
    folder, beside = tmp_path / "work/project", tmp_path / "work/beside"
    for each in (folder, beside):
        each.mkdir(parents=True)
    (folder / "out").symlink_to(beside)
    (folder / "up").symlink_to("../beside")
    user = (1000, 1000, os.geteuid(), os.getegid())
    with Prisoner(tmp_path / "vm", Folder(folder), user=user) as prisoner:
        at = inside(folder)
        assert prisoner.tries(f"os.close(os.open({at!r} + '/made', os.O_CREAT | os.O_WRONLY))") == "None"
        assert (folder / "made").stat().st_uid == os.geteuid()
        assert prisoner.tries("os.getuid()") == "1000"
        assert prisoner.tries(f"os.listdir({at!r} + '/..')") == "['project']"
        for link in ("out", "up"):
            assert prisoner.tries(f"os.listdir({at!r} + '/{link}')") == "ENOENT"
        assert prisoner.tries("os.listdir('/proc')") in {"['1', 'self', 'thread-self']", "['self', 'thread-self', '1']"}
        for name in ("sys", "kcore", "sysrq-trigger", "keys", "mounts/../../2"):
            assert prisoner.tries(f"os.stat('/proc/{name}')") == "ENOENT", name


def test_a_folder_to_be_read(tmp_path: Path) -> None:
    """It is mounted so: QEMU's own word is not needed for it."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "file").write_text("text")
    user = (1000, 1000, os.geteuid(), os.getegid())
    with Prisoner(tmp_path / "vm", Folder(folder, "ro"), user=user) as prisoner:
        at = inside(folder)
        assert prisoner.tries(f"os.read(os.open({at!r} + '/file', 0), 10)") == "b'text'"
        assert prisoner.tries(f"os.open({at!r} + '/file', os.O_WRONLY)") == "EROFS"
        assert prisoner.tries(f"os.mkdir('new', dir_fd=os.open({at!r}, os.O_PATH))") == "EROFS"


def test_a_folder_that_is_another_by_now(tmp_path: Path) -> None:
    """Nothing is served: neither what a link on the way to it leads to, nor what has come in its place."""
    (tmp_path / "secret/project").mkdir(parents=True)
    (tmp_path / "link").symlink_to("secret")
    status = (tmp_path / "secret").stat()
    for folder in (
        Folder(tmp_path / "link", "ro"),
        Folder(tmp_path / "link/project"),
        Folder(tmp_path / "secret/project", identity=(status.st_dev, status.st_ino)),
    ):
        with pytest.raises(BackendError, match="cannot be confined"), Prisoner(tmp_path / "vm", folder):
            pass
    with Prisoner(tmp_path / "vm", Folder(tmp_path / "secret", "rw", (status.st_dev, status.st_ino))) as prisoner:
        assert prisoner.tries(f"os.listdir({inside(tmp_path / 'secret')!r})") == "['project']"


def test_memory_that_others_are_restored_from(tmp_path: Path) -> None:
    """It is opened to be written, as QEMU 7.2 does, and is given to be read; there is no second time and no file."""
    file = tmp_path / "memory"
    file.write_bytes(b"saved")
    descriptor = os.open(file, os.O_RDONLY)
    with Prisoner(tmp_path / "vm", memory=descriptor) as prisoner:
        os.close(descriptor)
        assert prisoner.tries("os.read(memory, 9)") == "b'saved'"
        assert prisoner.tries("os.write(memory, b'x')") == "EBADF"
        assert prisoner.tries("os.ftruncate(memory, 0)") == "EINVAL"
        assert prisoner.tries("mmap.mmap(memory, 5, mmap.MAP_SHARED)") == "EACCES"
        assert prisoner.tries("mmap.mmap(memory, 5, mmap.MAP_PRIVATE).write(b'own')") == "3"
        assert prisoner.tries("libc.open(b'/memory', 2), ctypes.get_errno()") == f"(-1, {errno.ENOSYS})"
        assert prisoner.tries("os.open('/memory', os.O_RDONLY)") == "ENOENT"
    assert file.read_bytes() == b"saved"


def test_doctor_tells_a_vm_without_a_jail(held: Prisoner) -> None:
    """One that an earlier version started, and that this server took over."""
    assert is_jailed(held.record.pid)
    assert not is_jailed(os.getpid())


LAUNCH = """
import sys
from pathlib import Path
from support.guests.prisoner import Prisoner
with Prisoner(Path(sys.argv[1])) as prisoner:
    print(prisoner.tries("os.getuid()"), prisoner.tries("os.setuid(0)"), prisoner.tries("os.listdir('/dev')"))
"""


def _in_a_container(folder: Path, *, before: str) -> subprocess.CompletedProcess[str]:
    """Launch as the root of a user namespace that has one user, after the shell commands `before`."""
    words = ["unshare", "--map-root-user", "sh", "-c", f'{before}; exec "$@"', "sh", sys.executable, "-c", LAUNCH]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([*words, str(folder)], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.root
def test_a_container_without_users_to_give(tmp_path: Path) -> None:
    """Its root is nobody in particular outside; the VMM is that user, and cannot become another."""
    done = _in_a_container(tmp_path / "vm", before="true")
    assert done.stdout == "0 ENOSYS ['null']\n", done.stderr


@pytest.mark.root
def test_a_host_that_forbids_it_runs_nothing(tmp_path: Path) -> None:
    """Nothing is left out in silence: the error says what to do, no process and no record stay."""
    done = _in_a_container(tmp_path / "vm", before="echo 0 >/proc/sys/user/max_pid_namespaces")
    assert "cannot be confined: No space left on device (unshare)" in done.stderr
    assert not (tmp_path / "vm/vm.json").exists()


@pytest.mark.root
def test_it_is_the_same_for_an_ordinary_user() -> None:
    """All of this file again, as somebody who can give QEMU no other user."""
    user = 54322
    everything = "-all,+dac_read_search"  # the interpreter may be in root's home
    with tempfile.TemporaryDirectory() as folder:  # others may not look into those of pytest
        os.chown(folder, user, user)
        command = [
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
            *(f"--inh-caps={everything}", f"--ambient-caps={everything}", f"--bounding-set={everything}"),
            *(sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={folder}/base"),
            *("-m", "not root", __file__),
        ]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
