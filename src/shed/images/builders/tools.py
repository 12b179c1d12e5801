"""The builders: docker, podman and buildah, and which of them builds.

docker builds with BuildKit through buildx, or with the classic builder where buildx is missing or ``DOCKER_BUILDKIT=0``
asks for it.  BuildKit writes an OCI archive itself, unless the engine builds into its old image store (driver
``docker`` without containerd's snapshotter), which cannot; from there, as with the classic builder, the image comes by
``docker save``.  podman and buildah build without an engine, as root or as an ordinary user; podman in its machine
where there is one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from shed.errors import UnavailableError, UsageError
from shed.images.builders.base import MISSING, Builder, BuildRequest, Show, complaint, tool_environment
from shed.images.builders.bases import write_docker_archive
from shed.images.builders.policy import write_policy
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
                run_streaming(docker_export_command(request, output), env=env, show=show)
                return
            command = ["docker", "buildx", "build", "--load", *_engine_contexts(request, output.parent, env, show)]
        elif request.layouts:
            raise UnavailableError(
                "docker's classic builder cannot build on an image of this store",
                code="NO_BUILDER",
                hint="install the package docker-buildx, without DOCKER_BUILDKIT=0, or build with --builder podman",
            )
        else:
            command = ["docker", "build"]
            env["DOCKER_BUILDKIT"] = "0"
        record = output.with_suffix(".id")
        run_streaming(docker_build_command(command, request, record), env=env, show=show)
        self.export(record.read_text().strip(), output, show)

    def has(self, reference: str) -> bool:
        """Tell whether the engine has the image."""
        return complaint("docker", "image", "inspect", "--format", "{{.Id}}", reference) is None

    def export(self, reference: str, output: Path, show: Show | None) -> None:
        """Save an image; engines before 25 write a docker archive."""
        run_streaming(["docker", "save", "--output", output, reference], env=tool_environment(output.parent), show=show)


def docker_export_command(request: BuildRequest, output: Path) -> list[Argument]:
    """Return the command that builds with BuildKit and writes the archive.

    Without attestations, which say when and where it was built.
    """
    quoted = str(output).replace('"', '""')  # the value is CSV, and a path may hold a comma
    destination = f'type=oci,"dest={quoted}"' + (",rewrite-timestamp=true" if request.epoch else "")
    quiet = ["--progress=plain", "--provenance=false", "--sbom=false"]
    contexts = _buildkit_contexts(request)
    return [
        "docker",
        "buildx",
        "build",
        *quiet,
        "--output",
        destination,
        *contexts,
        *request.options(),
        request.context,
    ]


def _buildkit_contexts(request: BuildRequest) -> list[Argument]:
    """Return the options that have BuildKit take layouts for names, which it compares with arguments put in.

    The engine's old image store takes none: see `_engine_contexts`.
    """
    words: list[Argument] = []
    for each in request.layouts:
        words += ["--build-context", f"{each.base.name}=oci-layout://{each.folder / each.path}@{each.digest}"]
    return words


def _engine_contexts(request: BuildRequest, scratch: Path, env: Mapping[str, str], show: Show | None) -> list[Argument]:
    """Have the engine load the images of our store that it lacks; return the options that have it take them for names.

    An image stays there as ``shed-from:HEX``.
    """
    words: list[Argument] = []
    for each in request.layouts:
        name = each.path.replace("/", ":")
        if complaint("docker", "image", "inspect", "--format", "{{.Id}}", name) is not None:
            archive = scratch / "base.tar"
            write_docker_archive(each, archive, name)
            run_streaming(["docker", "load", "--quiet", "--input", archive], env=env, show=show)
            archive.unlink()
        words += ["--build-context", f"{each.base.name}=docker-image://{name}"]
    return words


def docker_build_command(start: Sequence[Argument], request: BuildRequest, record: Path) -> list[Argument]:
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


class Podman:
    """Builds into podman's storage, where the layers stay as a cache, and saves the image from there."""

    name = "podman"
    storage = "containers-storage"

    def probe(self) -> str | None:
        """Return why podman cannot be used, or None: its storage, or its machine, answers."""
        return complaint("podman", "info")

    def build(self, request: BuildRequest, output: Path, show: Show | None) -> None:
        """Build, then save."""
        self.export(_build_in_storage(self.name, request, output.with_suffix(".id"), show), output, show)

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


class Buildah:
    """Builds into buildah's storage, where the layers stay as a cache, and copies the image from there."""

    name = "buildah"
    storage = "containers-storage"

    def probe(self) -> str | None:
        """Return why buildah cannot be used, or None: its storage can be opened."""
        return complaint("buildah", "info")

    def build(self, request: BuildRequest, output: Path, show: Show | None) -> None:
        """Build, then copy."""
        self.export(_build_in_storage(self.name, request, output.with_suffix(".id"), show), output, show)

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


def storage_build_command(tool: str, request: BuildRequest, record: Path) -> list[Argument]:
    """Return the command of podman or buildah that builds and writes the image's identifier to `record`.

    It runs in the folder of the request's layouts.
    """
    command: list[Argument] = [tool, "build", "--layers", "--force-rm", "--iidfile", record]
    command += ["--tag", f"localhost/shed-build:{request.name}"]
    if request.epoch:
        command += [
            "--timestamp",
            request.epoch,
            "--no-cache",
        ]  # what is cached keeps the times of the build that made it
    command += ["--http-proxy=false"] if request.foreign and _has_password(tool_environment()) else []
    for each in request.layouts:
        for word in each.base.words:  # the path is relative: it becomes the name of what they keep of the layout
            command += ["--build-context", f"{word}=container-image://oci:{each.path}:localhost/{each.path}"]
    return [*command, *request.options(), request.context]


def _has_password(env: Mapping[str, str]) -> bool:
    """Tell whether a proxy has one: podman and buildah hand proxies to all commands of a build."""
    return any("@" in env.get(name, "") for name in ("HTTP_PROXY", "HTTPS_PROXY"))


def _storage(tool: str) -> str:
    """Return the folder that the images of podman or buildah are in."""
    words = ["--format", "{{.Store.GraphRoot}}"] if tool == "podman" else ["--format", "{{.store.GraphRoot}}"]
    return run([tool, "info", *words], env=tool_environment()).stdout.decode(errors="replace").strip()


def _build_in_storage(tool: str, request: BuildRequest, record: Path, show: Show | None) -> str:
    """Build with podman or buildah and return the image's identifier."""
    command, folder = storage_build_command(tool, request, record), record.parent
    place = request.layouts[0].folder if request.layouts else None
    if request.foreign:
        command[2:2] = ["--signature-policy", write_policy(folder, place, _storage(tool))]
    run_streaming(command, env=request.environment(folder), show=show, cwd=place)
    return record.read_text().strip()


BUILDERS: tuple[Builder, ...] = (Docker(), Podman(), Buildah())
"""In the order in which they are tried."""
_NEXT_STEP = {
    "docker": "install docker and start its engine",
    "podman": "install the package podman",
    "buildah": "install the package buildah",
}


def choose_builder(name: str | None = None, *, builders: Sequence[Builder] = BUILDERS) -> Builder:
    """Return the builder called `name`, or the first that works.

    Raises `UsageError` for a name that there is not, and `UnavailableError` (NO_BUILDER) with every reason when none
    works.
    """
    if name is not None:
        builders = [builder for builder in builders if builder.name == name]
        if not builders:
            raise UsageError(
                f"there is no builder {name!r}", hint=f"choose one of {', '.join(builder.name for builder in BUILDERS)}"
            )
    reasons: dict[str, str] = {}
    for builder in builders:
        reason = builder.probe()
        if reason is None:
            return builder
        reasons[builder.name] = reason
    raise _none_works(reasons)


def _none_works(reasons: Mapping[str, str]) -> UnavailableError:
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    steps = ", or ".join(
        _NEXT_STEP[name] if name == "docker" or reason == MISSING else f"see `{name} info`"
        for name, reason in reasons.items()
    )
    if len(reasons) == 1:
        return UnavailableError(f"cannot build with {told}", code="NO_BUILDER", hint=steps)
    hint = f"{steps}; or build elsewhere and use --from-oci-archive"
    return UnavailableError(f"no image builder works on this machine: {told}", code="NO_BUILDER", hint=hint)
