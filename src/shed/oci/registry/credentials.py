"""The credentials that docker, podman and skopeo keep for a registry, found where they keep them.

Looked at in this order, the first that knows the registry wins: ``$REGISTRY_AUTH_FILE``, docker's ``config.json``,
podman's ``auth.json``. Sources: https://docs.docker.com/reference/cli/docker/login/ and containers-auth.json(5).  What
is secret is in no message and no `repr`.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shed.errors import DataError, RegistryError, StorageError
from shed.oci.fields import Fields, decode_object
from shed.oci.registry.reference import DOCKER_HUB, Reference
from shed.run import run

_HUB_URL = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What to show a registry; without anything, we are anonymous."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """Exchanged for access tokens by OAuth 2."""
    registry_token: str = field(default="", repr=False)
    """An access token itself."""

    @property
    def basic(self) -> str | None:
        """The value of an Authorization header, None without a user name."""
        if not self.username:
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)


def find_credentials(reference: Reference) -> Credentials:
    """Return the credentials for the registry of `reference`, anonymous ones when there are none.

    Raises `DataError` for a damaged file, and `RegistryError` or `UnavailableError` when a credential helper fails.
    """
    for path in _files():
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}", hint="check who owns it") from None
        if not data.strip():  # as a program leaves it that was told to make the file
            continue
        found = _in_file(Fields(decode_object(data, str(path)), str(path)), reference)
        if found:
            return found
    return Credentials()


def _files() -> Iterator[Path]:
    environment = os.environ
    if explicit := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(explicit)
    yield Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json"
    yield Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "containers/auth.json"


def _in_file(config: Fields, reference: Reference) -> Credentials:
    names = _names(reference)
    helpers = config.texts("credHelpers")
    for name in names:
        if helpers.get(name):
            return _ask(helpers[name], reference)
    store = config.text("credsStore", "")
    if store and (found := _ask(store, reference)):
        return found
    entries = config.value.get("auths")
    if not isinstance(entries, dict):
        return Credentials()
    plain = {_plain(key): value for key, value in entries.items()}
    for name in names:
        if isinstance(plain.get(name), dict):
            return _entry(plain[name], f"{config.what}: entry for {name}")
    return Credentials()


def _names(reference: Reference) -> list[str]:
    """Return what an entry may be called, the most specific first: podman allows namespaces."""
    parts = reference.repository.split("/")
    hosts = [reference.registry]
    if reference.registry == DOCKER_HUB:
        hosts += ["index.docker.io", "registry-1.docker.io"]
    return [f"{host}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1) for host in hosts] + hosts


def _plain(key: str) -> str:
    """Return the key of an entry without scheme and API version.

    ``https://index.docker.io/v1/`` is ``index.docker.io``.
    """
    rest = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    return re.sub(r"/v[12]$", "", rest)


def _entry(entry: dict[str, Any], what: str) -> Credentials:
    fields = Fields(entry, what)
    username, password = fields.text("username", ""), fields.text("password", "")
    if encoded := fields.text("auth", ""):
        try:
            pair = base64.b64decode("".join(encoded.split()), validate=True).decode().rstrip("\0")
        except (binascii.Error, ValueError):
            pair = ""
        username, colon, password = pair.partition(":")
        if not colon:
            raise DataError(f"{what}: 'auth' is not base64 of NAME:PASSWORD", hint="log in again")
    return Credentials(username, password, fields.text("identitytoken", ""), fields.text("registrytoken", ""))


def _ask(helper: str, reference: Reference) -> Credentials:
    """Ask the program ``docker-credential-HELPER``.  Protocol: https://github.com/docker/docker-credential-helpers."""
    program = f"docker-credential-{helper}"
    if not _HELPER.fullmatch(helper):
        raise DataError(f"{helper!r} is not the name of a credential helper")
    server = _HUB_URL if reference.registry == DOCKER_HUB else reference.registry
    hint = "install it, or take it out of docker's config.json and log in again"
    done = run([program, "get"], stdin=server.encode(), env=os.environ, check=False, timeout=_HELPER_TIMEOUT, hint=hint)
    if done.returncode:
        if b"credentials not found" in done.stdout + done.stderr:
            return Credentials()
        # What it printed may be secret.
        hint = f"run it by hand: echo {server} | {program} get"
        raise RegistryError(f"{program} failed with exit code {done.returncode} for {reference.registry}", hint=hint)
    try:
        answer = json.loads(done.stdout)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, RecursionError, TypeError, KeyError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise RegistryError(f"what {program} answers for {reference.registry} is not a credential", hint="log in again")
    return Credentials(identity_token=secret) if username == "<token>" else Credentials(username, secret)
