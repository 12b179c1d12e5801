"""A machine whose server runs in the host of a network lab, with the shed `dev`: what real guests reach."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shed.client.sync.client import Client
from shed.client.sync.shed import RUNTIME
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.servers.netlab import Lab, lab
from support.vms.machine import Machine, command_line

PYTHON = [
    RUNTIME, "sh", "-c",
    ('r=/run/shed-runtime; for l in $r/lib/ld-linux-*; do exec $l --library-path $r/lib $r/bin/python3 -ISBc "$0" '
     '"$@"; done'),
]  # fmt: skip
"""The agent's own interpreter, which is in every image: the attacker has tools."""


class RuledHost:
    """A machine whose server runs in a lab's host."""

    def __init__(self, net: Lab, machine: Machine) -> None:
        self.net, self.machine = net, machine
        self._patch = pytest.MonkeyPatch()
        for name in ("SHED_DATA_DIR", "SHED_RUNTIME_DIR", "HOME"):
            self._patch.setenv(name, machine.environment[name])
        self.start_server()
        self.api = Client().api

    def start_server(self) -> None:
        """Start the server in the host's network."""
        words = f"exec {self.machine.command[0]} -m shed.server.main serve 2>&1"
        self.server = self.net.start_in_host(words, **self.machine.environment)

    def rule(self, *rules: dict[str, Any]) -> None:
        """Have the shed dev be ruled by these rules alone."""
        self.api.set_egress_profile("mine", {"rules": list(rules), "log": "all"})
        self.api.set_shed_egress("dev", ["mine"])

    def log(self) -> list[dict[str, Any]]:
        """Return the last entry of the shed's log, if there is one."""
        return self.api.egress_log("dev", tail=1)

    def sh(self, words: str, shed: str = "dev") -> tuple[int, str]:
        """Run words by the guest's shell as root; return the exit code and all that was printed."""
        done = self.machine.try_shed("exec", "--user", "root", shed, "--", "sh", "-c", f"{words} 2>&1")
        return done.returncode, done.stdout.decode()

    def end(self) -> None:
        """End all of it."""
        self.machine.end()
        self._patch.undo()


@contextlib.contextmanager
def ruled_host(way: str, store: LayoutStore, folder: Path, *options: str, settings: str = "") -> Iterator[RuledHost]:
    """Yield a host with the shed dev, made with `options` of the image busybox in `store`; needs root."""
    machine = Machine(folder / "machine", way=way, settings=settings)
    copy_store(store, machine.data / "images")
    (folder / "lab").mkdir()
    with lab(folder / "lab", guest=False) as net:
        made = RuledHost(net, machine)
        try:
            machine.shed("create", "dev", "--image", "busybox", *options)
            yield made
        finally:
            made.end()


def relay(machine: Machine) -> int:
    """Return the process of the machine's relay."""
    wanted = str(machine.data / "logs").encode()
    (found,) = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and b"shed.egress.netd" in (words := command_line(entry)).split(b"\0")
        and wanted in words
    ]
    return found
