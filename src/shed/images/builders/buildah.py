"""buildah: builds without an engine, as root or as an ordinary user."""

from __future__ import annotations

from pathlib import Path

from shed.images.builders.base import BuildRequest, Show, complaint, tool_environment
from shed.run import Argument, run_streaming


class Buildah:
    """Builds into buildah's storage, where the layers stay as a cache, and copies the image from there."""

    name = "buildah"
    storage = "containers-storage"

    def probe(self) -> str | None:
        """Return why buildah cannot be used, or None: its storage can be opened."""
        return complaint("buildah", "info")

    def build(self, request: BuildRequest, output: Path, show: Show | None) -> None:
        """Build, then copy."""
        record = output.with_suffix(".id")
        run_streaming(build_command(request, record), env=request.environment(output.parent), show=show)
        self.export(record.read_text().strip(), output, show)

    def has(self, reference: str) -> bool:
        """Tell whether the image is in the storage."""
        return complaint("buildah", "inspect", "--type", "image", reference) is None

    def export(self, reference: str, output: Path, show: Show | None) -> None:
        """Copy an image."""
        run_streaming(
            ["buildah", "push", "--quiet", reference, f"oci-archive:{output}"],
            env=tool_environment(output.parent),
            show=show,
        )


def build_command(request: BuildRequest, record: Path) -> list[Argument]:
    """Return the command that builds and writes the image's identifier to `record`."""
    command: list[Argument] = ["buildah", "build", "--layers", "--force-rm", "--iidfile", record]
    command += ["--tag", f"localhost/shed-build:{request.name}"]
    if request.epoch:
        command += [
            "--timestamp",
            request.epoch,
            "--no-cache",
        ]  # what is cached keeps the times of the build that made it
    return [*command, *request.options(), request.context]
