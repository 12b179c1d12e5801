"""What a builder is.

It turns a context directory and a Containerfile into an image in a store of its own, and images there into archives.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shed.errors import ShedError, UnavailableError
from shed.images.builders.bases import Layout
from shed.oci.descriptor import Platform
from shed.run import Argument, run

Show = Callable[[bytes], object]
"""Takes what a builder prints, as it comes."""
_PASSED = (
    "BUILDAH_FORMAT", "BUILDAH_ISOLATION", "BUILDAH_RUNTIME", "BUILDKIT_HOST", "BUILDX_BUILDER", "BUILDX_CONFIG",
    "CONTAINERS_CONF", "CONTAINERS_REGISTRIES_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINER_CONNECTION",
    "CONTAINER_HOST", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_BUILDKIT", "DOCKER_CERT_PATH", "DOCKER_CONFIG",
    "DOCKER_CONTEXT", "DOCKER_HOST", "DOCKER_TLS_VERIFY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY",
    "REGISTRY_AUTH_FILE", "SOURCE_DATE_EPOCH", "SSH_AUTH_SOCK", "SSL_CERT_DIR", "STORAGE_DRIVER", "STORAGE_OPTS",
    "XDG_CACHE_HOME",
)  # fmt: skip
"""Variables that say where a builder's engine, storage and registries are; other commands do not get them."""
MISSING = "it is not installed"
_PROBE_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What is to be built."""

    context: Path
    file: Path
    name: str
    """What the builder calls the image in its own storage, where it has one."""
    target: str | None = None
    """Stage to stop at; the last one when None."""
    platform: Platform | None = None
    build_args: tuple[str, ...] = ()
    """``K=V``, or ``K``: then the value is that of our environment, and no process argument shows it."""
    epoch: str | None = None
    """Seconds since 1970 that all times in the image are set to, as ``SOURCE_DATE_EPOCH`` gives them."""
    layouts: tuple[Layout, ...] = ()
    """Images of our store that stand for names in `file`."""
    foreign: bool = False
    """What is built is not the user's own: no name in it means files of this machine, and no password of a proxy goes
    to its commands."""

    def options(self) -> list[Argument]:
        """Return the options that all builders share; the context comes behind them."""
        words: list[Argument] = ["--file", self.file]
        words += ["--target", self.target] if self.target else []
        words += ["--platform", str(self.platform)] if self.platform else []
        for pair in self.build_args:
            words += ["--build-arg", pair]
        return words

    def arguments(self) -> dict[str, str]:
        """Return the build arguments with their values; one without is not given."""
        pairs = (pair.partition("=") for pair in self.build_args)
        values = {name: value if equals else os.environ.get(name) for name, equals, value in pairs}
        return {name: value for name, value in values.items() if value is not None}

    def environment(self, scratch: Path) -> dict[str, str]:
        """Return what `tool_environment` does, and the values of build arguments that have none."""
        bare = [name for name in self.build_args if "=" not in name]
        return tool_environment(scratch) | {name: os.environ[name] for name in bare if name in os.environ}


class Builder(Protocol):
    """One tool that builds and stores images."""

    name: str
    """As in ``--builder``."""
    storage: str
    """Where its images are, as in ``--from STORAGE:REF``."""

    def probe(self) -> str | None:
        """Return why it cannot be used on this machine, or None when it works."""
        ...

    def build(self, request: BuildRequest, output: Path, show: Show | None) -> None:
        """Build what `request` says and write it to the archive `output`.

        `output` is in a directory that is removed afterwards with all that is in it.

        What the tool prints goes to `show`, or the last of it into the error.  Raises `ToolError` when the build
        fails.
        """
        ...

    def has(self, reference: str) -> bool:
        """Tell whether the image is in the tool's store."""
        ...

    def export(self, reference: str, output: Path, show: Show | None) -> None:
        """Write an image of the tool's store to the archive `output`.  Raises `ToolError`."""
        ...


def tool_environment(scratch: Path | None = None) -> dict[str, str]:
    """Return the variables that a builder gets besides those every command gets.

    Its temporary files go to the folder `scratch`.
    """
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return env if scratch is None else env | {"TMPDIR": str(scratch)}


def complaint(*command: Argument) -> str | None:
    """Run a command that shows whether a tool works; return the last line of its complaint, or None."""
    try:
        done = run(command, env=tool_environment(), check=False, timeout=_PROBE_TIMEOUT)
    except UnavailableError:
        return MISSING
    except ShedError as error:
        return error.message
    if not done.returncode:
        return None
    lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"{command[0]} failed with exit code {done.returncode}"
