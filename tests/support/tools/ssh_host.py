"""A server of the fake backend with an SSH front, and clients of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO
from urllib.parse import quote

from shed.sshkeys import PublicKey
from support.ports import free_port
from support.servers.running import Running
from support.servers.world import World
from support.tools.ssh import Ssh


class Host:
    """A server, and clients of its SSH front; `settings` are the server's, beside the port.  With `tcp` it has an HTTP
    port, too.

    Its standard error goes to `log`, when that is given; with `logged` it logs to the file `log_file`.  `limits`
    replace constants of `shed.server.ssh.limits`.
    """

    def __init__(
        self,
        root: Path,
        *,
        tcp: int | None = None,
        log: IO[bytes] | None = None,
        logged: bool = False,
        limits: dict[str, float] | None = None,
        **settings: object,
    ) -> None:
        self._log = log
        self.ssh = Ssh(root / "ssh", free_port())
        self.world = World(root / "w")
        (root / "w").mkdir()
        (root / "w/limits").write_text(json.dumps(limits or {}))
        self.log_file = root / "w/log"
        if logged:
            self.log_file.touch()
        if tcp is not None:
            (root / "w/port").write_text(str(tcp))
        self.configure(ssh_port=self.ssh.port, **settings)
        self.start()

    def configure(self, **settings: object) -> None:
        """Have the next server start with other settings."""
        (self.world.paths.data.parent / "ssh").write_text(json.dumps(settings))

    def start(self) -> None:
        """Start the server, and have it let in the clients' key."""
        self.server = Running(self.world, log=self._log)
        self.enrol(self.ssh.public)

    def enrol(self, key: str, *, status: int = 201) -> None:
        """Have the server let in a key, by which it answers `status`."""
        answer = self.server.request("POST", "/api/ssh-keys", json.dumps({"key": key}))
        assert answer[0] in (status, 200), answer

    def create(self, name: str) -> None:
        """Make a shed."""
        status, answer = self.server.request("POST", "/api/sheds", json.dumps({"name": name, "image": "base"}))
        assert status == 201, answer

    def revoke(self, key: str) -> None:
        """Have the server let in a key no more."""
        target = f"/api/ssh-keys/{quote(PublicKey.parse(key).fingerprint, safe='')}"
        status, answer = self.server.request("DELETE", target)
        assert status == 200, answer

    def get(self, path: str) -> dict[str, object]:
        """Ask the server for something."""
        status, answer = self.server.request("GET", path)
        assert status == 200, answer
        return json.loads(answer)  # type: ignore[no-any-return]

    def memory(self) -> int:
        """Return the server's resident set, in bytes."""
        pages = Path(f"/proc/{self.server.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """End it all."""
        if self.server.process.poll() is None:
            self.server.end()
        self.world.kill_machines()
