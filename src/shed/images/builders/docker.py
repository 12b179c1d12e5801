"""docker: BuildKit through buildx, or the classic builder where buildx is missing or ``DOCKER_BUILDKIT=0`` asks for it.

BuildKit writes an OCI archive itself, unless the engine builds into its old image store (driver ``docker`` without
containerd's snapshotter), which cannot; from there, as with the classic builder, the image comes by ``docker save``.
"""

from __future__ import annotations

import os
from pathlib import Path

from shed.images.builders.base import BuildRequest, Show, complaint, tool_environment
from shed.run import Argument, run, run_streaming


class Docker:
    """Builds with the engine that the docker client talks to."""

    name = "docker"
    storage = "docker-daemon"

    def probe(self) -> str | None:
        """Return why docker cannot be used, or None: its engine answers."""
        return complaint("docker", "version", "--format", "{{.Server.Version}}")

    def build(self, request: BuildRequest, output: Path, show: Show | None) -> None:
        """Build, then save the image unless BuildKit did."""
        env = request.environment(output.parent)
        if os.environ.get("DOCKER_BUILDKIT") != "0" and complaint("docker", "buildx", "version") is None:
            if _exports():
                run_streaming(export_command(request, output), env=env, show=show)
                return
            command = ["docker", "buildx", "build", "--load"]
        else:
            command = ["docker", "build"]
            env["DOCKER_BUILDKIT"] = "0"
        record = output.with_suffix(".id")
        run_streaming(build_command(command, request, record), env=env, show=show)
        self.export(record.read_text().strip(), output, show)

    def has(self, reference: str) -> bool:
        """Tell whether the engine has the image."""
        return complaint("docker", "image", "inspect", "--format", "{{.Id}}", reference) is None

    def export(self, reference: str, output: Path, show: Show | None) -> None:
        """Save an image; engines before 25 write a docker archive."""
        run_streaming(["docker", "save", "--output", output, reference], env=tool_environment(output.parent), show=show)


def export_command(request: BuildRequest, output: Path) -> list[Argument]:
    """Return the command that builds with BuildKit and writes the archive.

    Without attestations, which say when and where it was built.
    """
    quoted = str(output).replace('"', '""')  # the value is CSV, and a path may hold a comma
    destination = f'type=oci,"dest={quoted}"' + (",rewrite-timestamp=true" if request.epoch else "")
    quiet = ["--progress=plain", "--provenance=false", "--sbom=false"]
    return ["docker", "buildx", "build", *quiet, "--output", destination, *request.options(), request.context]


def build_command(start: list[str], request: BuildRequest, record: Path) -> list[Argument]:
    """Return the command that builds into the engine's image store and writes the image's identifier to `record`."""
    plain = ["--progress=plain", "--provenance=false", "--sbom=false"] if "buildx" in start else []
    return [
        *start,
        *plain,
        "--iidfile",
        record,
        "--tag",
        f"shed-build:{request.name}",
        *request.options(),
        request.context,
    ]


def _exports() -> bool:
    """Tell whether the chosen BuildKit can write OCI archives."""
    env = tool_environment()
    chosen = run(["docker", "buildx", "inspect"], env=env).stdout.decode(errors="replace")
    if "docker" not in (line.partition(":")[2].strip() for line in chosen.splitlines() if line.startswith("Driver:")):
        return True
    return b"io.containerd.snapshotter" in run(["docker", "info", "--format", "{{.DriverStatus}}"], env=env).stdout
