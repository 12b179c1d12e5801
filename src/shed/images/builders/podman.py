"""podman: builds without an engine, as root or as an ordinary user, or in its machine where there is one."""

from __future__ import annotations

from pathlib import Path

from shed.images.builders.base import BuildRequest, Show, complaint
from shed.run import Argument, run_streaming


class Podman:
    """Builds into podman's storage, where the layers stay as a cache, and saves the image from there."""

    name = "podman"

    def probe(self) -> str | None:
        """Return why podman cannot be used, or None: its storage, or its machine, answers."""
        return complaint("podman", "info")

    def build(self, request: BuildRequest, output: Path, show: Show | None) -> None:
        """Build, then save."""
        record = output.with_suffix(".id")
        env = request.environment()
        run_streaming(build_command(request, record), env=env, show=show)
        identifier = record.read_text().strip()
        run_streaming(["podman", "save", "--quiet", "--format", "oci-archive", "--output", output, identifier], env=env, show=show)


def build_command(request: BuildRequest, record: Path) -> list[Argument]:
    """Return the command that builds and writes the image's identifier to `record`."""
    command: list[Argument] = ["podman", "build", "--layers", "--iidfile", record, "--tag", f"localhost/shed-build:{request.name}"]
    command += ["--timestamp", request.epoch] if request.epoch else []
    return [*command, *request.options(), request.context]
