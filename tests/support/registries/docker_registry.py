"""Debian's ``docker-registry``, the real one, on a free port of loopback, with a folder of its own."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ports import free_port
from support.registries.certificates import Certificate
from support.waiting import wait_until

PASSWORD = "correct horse"
_HTPASSWD = "me:$2y$05$.xKq6MDXXprdly81x8zQte/cv18fnCKdUDoUVHHUkgG6IArI9DZPe\n"
"""The password above for the user ``me``, by bcrypt, which is all that the registry takes."""


class DockerRegistry:
    """A registry process and its storage; it can be stopped, cleaned and started again."""

    def __init__(self, folder: Path, *, password: bool = False, certificate: Certificate | None = None) -> None:
        folder.mkdir()
        self.storage = folder / "storage"
        self._folder = folder
        self._config = folder / "config.json"  # JSON is YAML
        port = free_port()
        self.address = f"{certificate.host if certificate else 'localhost'}:{port}"
        self._base = f"{'https' if certificate else 'http'}://{self.address}"
        self._trust = ssl.create_default_context(cafile=certificate.authority) if certificate else None
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        if certificate:
            config["http"]["tls"] = {"certificate": str(certificate.chain), "key": str(certificate.key)}
        if password:
            (folder / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        self._config.write_text(json.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["docker-registry", "serve", self._config], stdout=log, stderr=log)
        wait_until(self._is_up, what="the registry answers", seen=(self._folder / "log").read_text)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        return self._answers()

    def stop(self) -> None:
        """End it; the storage stays."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def collect_garbage(self) -> str:
        """Remove what nothing refers to, while nobody writes; return what the collector said."""
        self.stop()
        command = ["docker-registry", "garbage-collect", str(self._config)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        self.start()
        return done.stdout + done.stderr

    def get(self, path: str, *, method: str = "GET", accept: str = "*/*") -> tuple[int, bytes]:
        """Return status and body of a plain request to ``/v2/`` + `path`."""
        request = urllib.request.Request(f"{self._base}/v2/{path}", method=method, headers={"Accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._trust) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("")[0] in (200, 401)
        return False


@contextlib.contextmanager
def docker_registry(
    folder: Path, *, password: bool = False, certificate: Certificate | None = None
) -> Iterator[DockerRegistry]:
    """Yield a registry with its storage in the new folder `folder`; with `password` it lets in the user ``me`` alone.

    With a `certificate` it speaks TLS.
    """
    registry = DockerRegistry(folder, password=password, certificate=certificate)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


def no_credentials(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Keep whoever runs the tests, and their credentials, out of it."""
    for name in (
        "REGISTRY_AUTH_FILE",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
        *(f"{kind}_proxy" for kind in ("http", "https")),
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "docker"))
