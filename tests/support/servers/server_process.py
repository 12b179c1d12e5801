"""The program that `support.servers.running` starts: a real server on the fake backend.

Arguments: the world's folder, and optionally the phase in which to stand still.  It stands still for good, with its
whole event loop, so that a test can end it there as a crash would.  Files in that folder say more:

    faults   how its VMs misbehave
    port     on which TCP port it listens too
    ssh      the configuration of its SSH front
    limits   other values of constants in `shed.server.ssh.limits`, as JSON
    log      where to log, if it is there
    networks the folder in which a `support.servers.netlab` gives out the one network namespace that its VMs have
"""

import json
import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

from shed.config.server import parse_settings
from shed.egress.network import netns
from shed.errors import ShedError
from shed.progress import Progress
from shed.server.app import Server
from shed.server.logfile import OneLine
from shed.server.run import serve
from shed.server.ssh import limits as ssh_limits
from shed.sheds.manager import Manager
from support.servers.contract import install
from support.servers.world import World


class LabNetworks:
    """The network namespace of a lab, for whichever VM asks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def problem(self) -> None:
        """Return no reason against it."""

    def sockets(self, state_dir: Path) -> list[socket.socket]:
        """Return the lab's sockets."""
        return netns.take(self._folder)


def main() -> None:
    """Serve."""
    install()
    root = Path(sys.argv[1])
    faults, port, ssh, limits, log = (root / name for name in ("faults", "port", "ssh", "limits", "log"))
    world = World(root, *(faults.read_text().split() if faults.exists() else ())).prepare()
    networks = root / "networks"
    if networks.exists():
        given = LabNetworks(Path(networks.read_text()))
        world.backend.capabilities = replace(world.backend.capabilities, networks=given)
    if port.exists():
        world.with_settings(http_port=int(port.read_text()))
    if ssh.exists():
        asked = parse_settings(ssh.read_text(), ssh)
        world.with_settings(
            **{name: getattr(asked, name) for name in ("ssh_port", "ssh_bind_address", "ssh_authorized_keys")}
        )
    if limits.exists():
        for name, value in json.loads(limits.read_text()).items():
            assert hasattr(ssh_limits, name)
            setattr(ssh_limits, name, value)
    if log.exists():
        handler = logging.FileHandler(log)
        handler.setFormatter(OneLine("%(levelname)s %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    if len(sys.argv) > 2:
        enter = Progress.phase

        def phase(progress: Progress, name: str, message: str = "") -> None:
            enter(progress, name, message)
            if name == sys.argv[2]:
                os.write(1, b"standing still\n")
                signal.pause()

        Progress.phase = phase  # type: ignore[method-assign, assignment]
    try:
        serve(Server(world.paths, world.settings, Manager(world.paths, world.backend, world.resolve, world.settings)))
    except ShedError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
