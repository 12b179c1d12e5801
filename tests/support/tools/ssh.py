"""The OpenSSH client, with a home and a key of its own: no agent, no configuration, no known host of whoever runs the
tests.
"""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Sequence
from pathlib import Path

TIMEOUT = 120


class Ssh:
    """Clients of the SSH front on `port`; files go to `folder`."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = port
        self.private, self.public = self.key("id")
        self._use(self.private, "config", *options)

    def by(self, private: Path | None, *options: str) -> Ssh:
        """Return clients that have this key, or none, and otherwise the same."""
        other = copy.copy(self)
        other._use(private, "config-none" if private is None else f"config-{private.name}", *options)
        return other

    def _use(self, private: Path | None, name: str, *options: str) -> None:
        self.config = self.folder / name
        lines = [
            *options,
            "Hostname 127.0.0.1",
            f"Port {self.port}",
            f"UserKnownHostsFile {self.folder}/known_hosts",
            "StrictHostKeyChecking accept-new",
            f"IdentityFile {private or 'none'}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            "BatchMode yes",
            "LogLevel ERROR",
        ]
        self.config.write_text("Host *\n" + "".join(f"  {line}\n" for line in lines))

    def command(self, *words: str, program: str = "ssh") -> list[str]:
        """Return the words of a command: the shed's name is the user, for example ``dev@shed``."""
        return [program, "-F", str(self.config), *words]

    def run(
        self, *words: str, program: str = "ssh", stdin: bytes = b"", code: int = 0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a client to its end, which must have the exit status `code`."""
        done = subprocess.run(
            self.command(*words, program=program), input=stdin, capture_output=True, timeout=TIMEOUT, check=False
        )
        assert done.returncode == code, done
        return done

    def start(self, *words: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        """Start a client."""
        return subprocess.Popen(self.command(*words), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def key(self, name: str) -> tuple[Path, str]:
        """Make a key pair; return the private key's path and the public key's line."""
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
        return path, path.with_suffix(".pub").read_text().strip()


def output_of(processes: Sequence[subprocess.Popen[bytes]]) -> list[tuple[bytes, bytes, int]]:
    """Wait for clients; return output, errors and exit status of each."""
    return [(*process.communicate(timeout=TIMEOUT), process.returncode) for process in processes]
