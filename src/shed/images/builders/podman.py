"""podman: builds without an engine, as root or as an ordinary user, or in its machine where there is one."""

from __future__ import annotations

from pathlib import Path

from shed.images.builders.base import BuildRequest, Show, complaint, tool_environment
from shed.run import Argument, run_streaming


class Podman:
    """Builds into podman's storage, where the layers stay as a cache, and saves the image from there."""

    name = "podman"
    storage = "containers-storage"

    def probe(self) -> str | None:
        """Return why podman cannot be used, or None: its storage, or its machine, answers."""
        return complaint("podman", "info")

    def build(self, request: BuildRequest, output: Path, show: Show | None) -> None:
        """Build, then save."""
        record = output.with_suffix(".id")
        run_streaming(build_command(request, record), env=request.environment(output.parent), show=show)
        self.export(record.read_text().strip(), output, show)

    def has(self, reference: str) -> bool:
        """Tell whether the image is in the storage."""
        return complaint("podman", "image", "exists", reference) is None

    def export(self, reference: str, output: Path, show: Show | None) -> None:
        """Save an image."""
        command: list[Argument] = [
            "podman",
            "save",
            "--quiet",
            "--format",
            "oci-archive",
            "--output",
            output,
            reference,
        ]
        run_streaming(command, env=tool_environment(output.parent), show=show)


def build_command(request: BuildRequest, record: Path) -> list[Argument]:
    """Return the command that builds and writes the image's identifier to `record`."""
    command: list[Argument] = ["podman", "build", "--layers", "--force-rm", "--iidfile", record]
    command += ["--tag", f"localhost/shed-build:{request.name}"]
    if request.epoch:
        command += [
            "--timestamp",
            request.epoch,
            "--no-cache",
        ]  # what is cached keeps the times of the build that made it
    return [*command, *request.options(), request.context]
