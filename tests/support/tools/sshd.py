"""OpenSSH's server on a free port of loopback, which lets in whoever runs the tests by given keys; and its agent."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from support.ports import free_port
from support.waiting import wait_until

USER = getpass.getuser()


class Sshd:
    """A server; files go to `folder`.  `keys` are lines of public keys that it lets in.

    With `authority`, the path of a private key, it shows a certificate of its key for the host `name`.  In the network
    `namespace` it is at port 22 of all addresses.
    """

    def __init__(
        self, folder: Path, *keys: str, authority: Path | None = None, name: str = "", namespace: str = ""
    ) -> None:
        folder.mkdir(parents=True)
        self.port = 22 if namespace else free_port()
        self.log = folder / "log"
        self.private_key = host_key = folder / "host"
        make_key(host_key)
        self.host_key = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
        (folder / "authorized").write_text("".join(f"{key}\n" for key in keys))
        lines = [
            f"ListenAddress {'0.0.0.0' if namespace else '127.0.0.1'}",
            f"Port {self.port}",
            f"HostKey {host_key}",
            f"AuthorizedKeysFile {folder}/authorized",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
        ]
        if authority is not None:
            words: list[str | Path] = [
                "ssh-keygen",
                "-q",
                "-s",
                authority,
                "-I",
                "host",
                "-h",
                "-n",
                name,
                host_key.with_suffix(".pub"),
            ]
            subprocess.run(words, check=True)
            lines.append(f"HostCertificate {folder}/host-cert.pub")
        (folder / "config").write_text("".join(f"{line}\n" for line in lines))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with self.log.open("wb") as log:
            inside: list[str | Path] = ["ip", "netns", "exec", namespace] if namespace else []
            command = [*inside, "/usr/sbin/sshd", "-D", "-e", "-f", folder / "config"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        wait_until(lambda: "Server listening on" in self.log.read_text(), what="sshd listens", seen=self.log.read_text)

    def client(self, port: int | None = None) -> str:
        """Return the words of a client that asks nothing, for git, too; `port` is where the server is for it."""
        options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        return f"ssh -F none -p {port or self.port} {' '.join(f'-o {option}' for option in options)}"

    def login(self, *words: str) -> str:
        """Return a command that logs in here, with whatever keys the agent has, and runs `words`."""
        return f"{self.client()} {USER}@127.0.0.1 {' '.join(words)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def make_key(path: Path, kind: str = "ed25519") -> str:
    """Make the key pair `path`; return the line of its public key."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", path.name, "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


@contextlib.contextmanager
def agent(socket_path: Path, *keys: Path) -> Iterator[str]:
    """An ssh-agent with some keys: where its socket is."""
    address = str(socket_path)
    process = subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL)
    try:
        wait_until(socket_path.exists)
        for key in keys:
            subprocess.run(["ssh-add", "-q", key], env={**os.environ, "SSH_AUTH_SOCK": address}, check=True)
        yield address
    finally:
        process.terminate()
        process.wait()
