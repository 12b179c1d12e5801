"""The unit: what systemd is told of the server.  Pure: touches nothing.

What matters in it: the VMs are the server's children and must outlive it, so a stop ends the main process alone
(``KillMode``), the folder of the sockets stays (``RuntimeDirectoryPreserve``), and a VM that the kernel kills for want
of memory does not take the server with it (``OOMPolicy``).  The server is served before the VMs, whose groups have the
usual weight; that of the machine is ended after them when memory is short (``OOMScoreAdjust``; a user may not ask for
that).  A configuration that is wrong does not get better by trying again (exit code 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shed.server.service.systemd import Scope

_FOLDERS = """\
RuntimeDirectory=shed
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
StateDirectory=shed/qemu
StateDirectoryMode=0700
"""
_LAST = "OOMScoreAdjust=-500\n"
_WANTED_BY = {Scope.SYSTEM: "multi-user.target", Scope.USER: "default.target"}


@dataclass(frozen=True, slots=True)
class Unit:
    """What differs from one host to the next."""

    scope: Scope
    command: Sequence[str]
    """The server's, program first, as an absolute path."""
    run_as: str | None = None
    """The user of a machine's service, root unless named."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the unit file."""
        machine = self.scope is Scope.SYSTEM
        service = f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in self.command)}\n"
        service += f"User={self.run_as}\n" if self.run_as else ""
        service += "".join(
            f"Environment={_quoted(f'{name}={value}')}\n" for name, value in sorted(self.environment.items())
        )
        return f"""\
# Written by shed-server.  Add to it with: {self.scope.command} edit shed-server
[Unit]
Description=Shed server (microVM development environments)
{"After=network.target" if machine else "After=basic.target"}

[Service]
Type=notify
{service}WorkingDirectory=/
{_FOLDERS if machine else ""}KillMode=process
OOMPolicy=continue
{_LAST if machine else ""}CPUWeight=500
IOWeight=500
TasksMax=infinity
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=2

[Install]
WantedBy={_WANTED_BY[self.scope]}
"""


def _quoted(word: str) -> str:
    """Return `word` as one word of a unit file."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return f'"{escaped}"' if escaped != word or " " in word or not word else word
