"""Who this shed is: host name, time zone, machine-id, ssh host keys.

Settled once per name, so that no two sheds of an image share any of it.
"""

from __future__ import annotations

import _socket
import os

from shed.guest import wirejson
from shed.guest.configure import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shed.guest.loop import Loop

_RECORD = "var/lib/shed/identity.json"
"""{"name"}: written last, so that a start that was cut off settles everything again."""
GENERATION = "/run/shed/generation"
"""32 hexadecimal digits, others at each start and in each fork, for programs that have to know.  It is replaced, never
written to.
"""
_SSHD, _KEYGEN = "/usr/sbin/sshd", "/usr/bin/ssh-keygen"
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_OWN_ADDRESS = "127.0.1.1"
_ZONES = "/usr/share/zoneinfo"


def set_hostname(hostname: str) -> None:
    """Set the kernel's host name."""
    _socket.sethostname(hostname)


def settled_name(root: str) -> str:
    """Return the name this root was settled for; empty when it was not."""
    text = steps.read_file(f"{root}/{_RECORD}")
    try:
        value = wirejson.loads(text.encode(errors="replace")) if text else None
    except ValueError:
        return ""
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def settle(root: str, hostname: str, timezone: str = "") -> None:
    """Write host name, hosts, time zone and a new machine-id, and remove host keys that came with the image.

    The record is still to be made.

    Raises `OSError`.
    """
    steps.make_folder(f"{root}/etc")
    steps.write_file(f"{root}/etc/hostname", hostname + "\n")
    steps.write_file(f"{root}/etc/hosts", hosts_with(steps.read_file(f"{root}/etc/hosts"), hostname))
    if not os.path.exists(f"{root}/etc/passwd"):
        steps.write_file(f"{root}/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")  # who asks who root is would give up
    steps.write_file(f"{root}/etc/machine-id", os.urandom(16).hex() + "\n")
    if timezone and os.path.isfile(f"{root}{_ZONES}/{timezone}"):
        _replace_link(f"{_ZONES}/{timezone}", f"{root}/etc/localtime")
        steps.write_file(f"{root}/etc/timezone", timezone + "\n")
    steps.make_folder(f"{root}/{_RECORD}".rpartition("/")[0])
    for name in _listdir(f"{root}/etc/ssh"):
        if name.startswith("ssh_host_"):
            os.unlink(f"{root}/etc/ssh/{name}")


def _replace_link(target: str, path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.symlink(target, path)


def renew_generation(path: str = GENERATION) -> None:
    """Tell programs that look there that this is another machine now.  Raises `OSError`."""
    steps.make_folder(path.rpartition("/")[0])
    steps.write_file(path, os.urandom(16).hex() + "\n")


def hosts_with(text: str, hostname: str) -> str:
    """Return a hosts file in which `hostname` is this machine, and no earlier name is."""
    lines = [line for line in text.splitlines(keepends=True) if line.split()[:1] != [_OWN_ADDRESS]]
    kept = "".join(lines)
    if not kept.endswith("\n") and kept:
        kept += "\n"
    return (kept if "localhost" in kept else _HOSTS + kept) + f"{_OWN_ADDRESS}\t{hostname}\n"


def needs_keys(root: str) -> bool:
    """Tell whether the image has an ssh server that wants keys."""
    return os.path.exists(root + _SSHD) and os.path.exists(root + _KEYGEN)


def ssh_servers(proc: str = "/proc") -> list[int]:
    """Return the processes that are ssh servers which listen: not those of their connections."""
    servers = [int(pid) for pid in _listdir(proc) if pid.isdecimal() and _link(f"{proc}/{pid}/exe") == _SSHD]
    return [pid for pid in servers if _parent(f"{proc}/{pid}/stat") not in servers]


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _parent(stat: str) -> int:
    fields = steps.read_file(stat).rpartition(")")[2].split()  # proc_pid_stat(5): the state, then the parent
    return int(fields[1]) if len(fields) > 1 else 0


def finish_settling(root: str, name: str) -> None:
    """Make host keys where the image has an ssh server, write it all to the disk, record the name.  Takes seconds.

    Raises `OSError`.
    """
    if needs_keys(root):
        os.waitpid(os.posix_spawn(root + _KEYGEN, ["ssh-keygen", "-A"], {"PATH": "/usr/bin:/bin"}), 0)
    os.sync()
    steps.write_file(f"{root}/{_RECORD}", wirejson.dumps({"name": name}).decode())


def finish_settling_beside(loop: Loop, root: str, name: str, done: Callable[[], None]) -> None:
    """As `finish_settling`, without waiting for it; `done` is called once it is recorded."""
    pid = os.fork()
    if pid:
        loop.on_exit(pid, lambda status: loop.log("identity could not be recorded") if status else done())
        return
    try:
        finish_settling(root, name)
        os._exit(0)
    finally:
        os._exit(1)


def _listdir(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
