"""Checks of the protection from guests, other users and strangers, by trying it: ``doctor --security``.

What only another user can show is tried as ``nobody``, when root asks; for everybody else the modes of the files have
to do.
"""

from __future__ import annotations

import http.client
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from shed.backends.base import Liveness
from shed.backends.interface import Networks
from shed.checks import Result, Status
from shed.config.server import Settings, find_settings, load_settings
from shed.errors import ShedError
from shed.run import run
from shed.server.doctor import hostile, limits, network, storage
from shed.server.doctor.host import Host
from shed.server.doctor.ssh import ssh_agents, ssh_port
from shed.sheds.folders import Folders, names
from shed.sheds.metadata import load

_NOBODY = 65534
_SECONDS = 5.0
_SECRETS = ("token", "tokens.json", "ssh_host_ed25519_key", "ssh_authorized_keys", "logs/audit.log")
"""Below the data folder: what no other user may read."""
_ATTEMPT = f"""
import os, socket, sys
os.setgroups([]); os.setgid({_NOBODY}); os.setuid({_NOBODY})
open(sys.argv[2]) if sys.argv[1] == "open" else socket.socket(socket.AF_UNIX).connect(sys.argv[2])
"""


def unix_socket(host: Host) -> Iterator[Result]:
    """Nobody but this user can open the server's socket."""
    path = host.paths.socket
    if not path.exists():
        yield Result(
            "unix socket", Status.WARN, f"no server listens at {path}, so nothing could be tried", "shed server start"
        )
        return
    folder, itself = path.parent.stat(), path.stat()
    if (
        folder.st_uid != os.geteuid()
        or itself.st_uid != os.geteuid()
        or folder.st_mode & 0o077
        or itself.st_mode & 0o077
    ):
        yield Result(
            "unix socket", Status.FAIL, f"others may open {path}", f"chmod 700 {path.parent}; chmod 600 {path}"
        )
    elif _as_nobody("connect", path):
        yield Result(
            "unix socket",
            Status.FAIL,
            f"another user could connect to {path}",
            f"look at the modes and ACLs of {path.parent}",
        )
    else:
        yield Result("unix socket", Status.PASS, f"only its user can open {path}")


def tcp_port(host: Host) -> Iterator[Result]:
    """The TCP port answers nobody without a token, and no web page."""
    port, address = _settings(host).http_port, _settings(host).bind_address
    if port is None:
        yield Result("tcp port", Status.PASS, "there is none: http_port is not set")
        return
    try:
        stranger = _status(address, port, {})
        page = _status(address, port, {"Host": "localhost", "Origin": "http://evil.example"})
    except OSError as error:
        yield Result(
            "tcp port", Status.WARN, f"nothing could be tried: {address}:{port}: {error}", "start the server first"
        )
        return
    if stranger != http.client.UNAUTHORIZED or page != http.client.FORBIDDEN:
        detail = f"port {port} answers a client without a token with {stranger}, and a web page with {page}"
        yield Result("tcp port", Status.FAIL, detail, "another program may have that port; or restart the server")
    else:
        yield Result(
            "tcp port", Status.PASS, f"port {port} answers only clients with a token: 401 without, 403 for a web page"
        )


def secrets(host: Host) -> Iterator[Result]:
    """Keys, tokens and the audit log are their user's alone."""
    named = (*(host.paths.data / name for name in _SECRETS), host.paths.run / "tokens")
    kept = (*host.paths.data.glob("secrets/*.json"), *host.paths.instances.glob("*/secrets.json"))
    there = [path for path in (*named, *kept) if path.exists()]
    open_ = [path for path in there if path.stat().st_mode & 0o077 or path.stat().st_uid != os.geteuid()]
    read = [path for path in there if path not in open_ and _as_nobody("open", path)]
    if open_ or read:
        hint = f"chmod 600 {open_[0] if open_ else read[0]}; and make new ones, since somebody may know these"
        yield Result("secrets", Status.FAIL, f"others can read {', '.join(map(str, open_ + read))}", hint)
    else:
        yield Result(
            "secrets", Status.PASS, f"{len(there)} files of keys, tokens and the audit log are their user's alone"
        )


def locks(host: Host) -> Iterator[Result]:
    """No other user can hold what the server waits for."""
    paths = host.paths
    folders = (paths.data, paths.images, paths.instances, paths.templates, paths.spares, paths.run)
    found = [sorted(path for path in folder.glob("*lock") if path.is_file()) for folder in folders]
    there = [path for locks in found for path in locks]
    held = [path for path in there if _is_open(path)] or [
        locks[0] for locks in found if locks and _as_nobody("open", locks[0])
    ]
    if held:
        hint = "restart the server, which closes its folders"
        yield Result(
            "locks",
            Status.FAIL,
            f"other users can hold {len(held)} locks, {held[0]} among them, and have you wait",
            hint,
        )
    else:
        yield Result("locks", Status.PASS, f"{len(there)} locks are their user's alone")


def _is_open(path: Path) -> bool:
    """Say whether another user can get at a file by the modes of it and its folder.

    What is above that is for root to try.
    """
    return bool(path.stat().st_mode & 0o077 and path.parent.stat().st_mode & 0o011)


def guests_network(host: Host) -> Iterator[Result]:
    """What leaves a shed is ruled; so it is for those, too, that have run since before that was so."""
    name, networks = "guest network", host.backend.capabilities.networks
    if networks is None or networks.problem():
        yield from filter(None, [network.missing(name, host)])
        return
    open_ones = [shed for shed, state_dir in _running(host) if not _has_network(networks, state_dir)]
    if open_ones:
        detail = f"the VMs of {', '.join(open_ones)} are of an earlier version: they reach whatever this user reaches"
        yield Result(name, Status.FAIL, detail, f"shed stop {open_ones[0]}; shed start {open_ones[0]}")
        return
    if unruled := [shed for shed, state_dir in _running(host) if not _is_ruled(state_dir)]:
        detail = f"the networks of {', '.join(unruled)} are not ruled (--network nic): they reach all public addresses"
        yield Result(name, Status.WARN, detail, f"shed stop {unruled[0]}; others: network.nic: refused in server.yaml")
        return
    default = ", ".join(host.settings.egress_default) or "none"
    yield Result(name, Status.PASS, f"what leaves a shed is ruled; profiles by default: {default}")


def _running(host: Host) -> Iterator[tuple[str, Path]]:
    """Yield the names of the sheds that run, and the folders of their VMs."""
    for shed in names(host.paths):
        state_dir = Folders(host.paths, shed).instance
        if host.backend.liveness(state_dir) is Liveness.OURS:
            yield shed, state_dir


def _is_ruled(state_dir: Path) -> bool:
    try:
        return load(state_dir).is_ruled
    except ShedError:
        return True


def _has_network(networks: Networks, state_dir: Path) -> bool:
    try:
        sockets = networks.sockets(state_dir)
    except ShedError:
        return False
    for sock in sockets:
        sock.close()
    return True


def jail(host: Host) -> Iterator[Result]:
    """A guest that breaks out of the VMM is in its jail; so is each VM that runs."""
    yield from host.diagnostics.jail()
    free = [shed for shed, state_dir in _running(host) if not host.diagnostics.is_jailed(state_dir)]
    if free:
        detail = f"without a jail, because an earlier version started them: {', '.join(free)}"
        yield Result("jail", Status.FAIL, detail, "stop and start them")


def audit_log(host: Host) -> Iterator[Result]:
    """What is done is written down."""
    path = host.paths.logs / "audit.log"
    if not path.exists():
        yield Result("audit log", Status.WARN, f"{path} is not there yet", "it is begun by the first request")
        return
    writable = os.access(path, os.W_OK) and stat.S_ISREG(path.lstat().st_mode)
    if writable:
        yield Result("audit log", Status.PASS, f"{path}, {path.stat().st_size} bytes")
    else:
        yield Result("audit log", Status.FAIL, f"{path} cannot be written to", "check who owns it")


def _settings(host: Host) -> Settings:
    return load_settings(host.config or find_settings())


def _status(address: str, port: int, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(address, port, timeout=_SECONDS)
    try:
        connection.request("GET", "/api/sheds", headers=headers)
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(f"what listens there does not speak HTTP: {error!r}") from None
    finally:
        connection.close()


def _as_nobody(attempt: str, path: Path) -> bool:
    """Say whether another user can ``open`` or ``connect`` to `path`.

    False when this is not root, who alone can become one.
    """
    if os.geteuid() != 0:
        return False
    done = run([sys.executable, "-I", "-S", "-c", _ATTEMPT, attempt, str(path)], timeout=_SECONDS, check=False)
    return done.returncode == 0


CHECKS = (
    ("unix socket", unix_socket),
    ("tcp port", tcp_port),
    ("ssh port", ssh_port),
    ("ssh agents", ssh_agents),
    ("secrets", secrets),
    ("locks", locks),
    ("guest network", guests_network),
    ("jail", jail),
    ("vm bounds", limits.bounds),
    ("shared folders", hostile.shared_folders),
    ("repositories", hostile.repositories),
    ("consoles", hostile.consoles),
    ("guests", hostile.guests),
    ("kernels", storage.kernels),
    ("registries", hostile.registries),
    ("audit log", audit_log),
)
