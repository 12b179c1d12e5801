"""What the relay's process leaves itself, once it has opened what it needs: names, outgoing connections, its logs.

Whoever takes it over, by what a shed or a server sends, finds no file of the server's or its users', and of the host's
only programs, settings and certificates; no socket of a service on this machine (Docker's, our own server's) and no way
to signal, look into or start another process.  With root's server it is root without any capability, and what only root
may read in /etc is hidden.
"""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path

from shed.linux import allowed, bpf, kernel, landlock

_HOST = (
    "/usr", "/lib", "/lib64", "/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager",
    "/var/lib/ca-certificates", "/proc/self", "/proc/sys/net", "/dev/null", "/dev/urandom",
)  # fmt: skip
"""Programs, how names are looked up, whom to trust.  The whole of /etc, because files there are replaced."""
_HIDDEN = (
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d", "/etc/shed",
    "/etc/ssh", "/etc/ssl/private", "/etc/pki/tls/private", "/etc/NetworkManager/system-connections", "/etc/wireguard",
    "/etc/netplan", "/etc/wpa_supplicant", "/etc/letsencrypt", "/etc/kubernetes", "/etc/security/opasswd",
)  # fmt: skip
_CALLS = {
    **allowed.ORDINARY, "connect": 42, "bind": 49, "rename": 82, "unlink": 87, "chmod": 90, "fchmod": 91,
    "unlinkat": 263, "recvmmsg": 299, "sendmmsg": 307, "renameat2": 316,
}  # fmt: skip
_SOCKET, _FAMILIES = 41, (2, 10, 16)
"""IPv4, IPv6, and netlink, by which is asked whose an address is; a Unix socket would lead to the host's services."""


def program() -> bytes:
    """Return the seccomp program of a relay."""
    families = [line for family in _FAMILIES for line in bpf.when(bpf.JEQ, family, then=[bpf.ret(bpf.ALLOW)])]
    rules = bpf.when(bpf.JEQ, _SOCKET, then=[*bpf.argument(0), *families, bpf.ret(allowed.NO_FAMILY)])
    return allowed.program({name: number for name, number in _CALLS.items() if name != "kill"}, rules)


def confine(logs: Path) -> None:
    """Confine this process, which has one thread yet, for good; `logs` is where it writes.

    Landlock is done without where the kernel has none; root's relay still writes nothing but logs then.  Raises
    `OSError` where anything else is not to be had.
    """
    if os.geteuid() == 0:
        _hide()
        _write_only_to(logs)
        kernel.drop_bounding_set()
    kernel.drop_capabilities()
    kernel.no_new_privileges()
    trusted = ssl.get_default_verify_paths()
    places = [*_HOST, *sys.path, sys.prefix, sys.base_prefix, trusted.cafile or "", trusted.capath or ""]
    landlock.restrict(set(places) - {"", "/"}, [str(logs)], connects=True)
    kernel.hold(program())


def _write_only_to(logs: Path) -> None:
    """Have everything else be there to be read: without Landlock, root owns what is root's, capabilities or not."""
    tree = kernel.open_tree(str(logs))
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    kernel.set_attributes(root, kernel.RDONLY)
    kernel.attach(tree, str(logs))
    os.close(root)
    os.close(tree)


def _hide() -> None:
    kernel.unshare(kernel.NEWNS)
    kernel.mount_private()
    for path in filter(os.path.exists, _HIDDEN):
        if Path(path).is_dir():
            kernel.mount("tmpfs", path, "mode=555,size=4k")
        else:
            kernel.attach(kernel.open_tree(os.devnull), path)
