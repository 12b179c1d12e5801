"""Who this shed is: host name, machine-id, ssh host keys.

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
_KEYGEN = "/usr/bin/ssh-keygen"
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_OWN_ADDRESS = "127.0.1.1"


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


def settle(root: str, hostname: str) -> None:
    """Write host name, hosts and a new machine-id, and remove host keys that came with the image.

    The record is still to be made.

    Raises `OSError`.
    """
    steps.make_folder(f"{root}/etc")
    steps.write_file(f"{root}/etc/hostname", hostname + "\n")
    steps.write_file(f"{root}/etc/hosts", hosts_with(steps.read_file(f"{root}/etc/hosts"), hostname))
    if not os.path.exists(f"{root}/etc/passwd"):
        steps.write_file(f"{root}/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")  # who asks who root is would give up
    steps.write_file(f"{root}/etc/machine-id", os.urandom(16).hex() + "\n")
    steps.make_folder(f"{root}/{_RECORD}".rpartition("/")[0])
    for name in _listdir(f"{root}/etc/ssh"):
        if name.startswith("ssh_host_"):
            os.unlink(f"{root}/etc/ssh/{name}")


def hosts_with(text: str, hostname: str) -> str:
    """Return a hosts file in which `hostname` is this machine, and no earlier name is."""
    lines = [line for line in text.splitlines(keepends=True) if line.split()[:1] != [_OWN_ADDRESS]]
    kept = "".join(lines)
    if not kept.endswith("\n") and kept:
        kept += "\n"
    return (kept if "localhost" in kept else _HOSTS + kept) + f"{_OWN_ADDRESS}\t{hostname}\n"


def needs_keys(root: str) -> bool:
    """Tell whether the image has an ssh server that wants keys."""
    return os.path.exists(f"{root}/usr/sbin/sshd") and os.path.exists(root + _KEYGEN)


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
