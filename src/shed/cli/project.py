"""Images of projects, as their ``devcontainer.json`` has them: `shed image build --devcontainer`, `shed create …`.

It is the user's own act, on the user's own machine: no server builds what a project asks for.
"""

from __future__ import annotations

import os

from shed.cli.connection import refuse_server
from shed.cli.output import shown
from shed.errors import UsageError
from shed.sizes import MIB
from shed.terminal.output import note, passing_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from shed.cli.options import Options
    from shed.client.options import ShedOptions
    from shed.images.devcontainer.project import Project
    from shed.images.mint import MintResult
    from shed.images.service import Images
    from shed.images.writers import RootWriter
    from shed.progress import Progress


class BuiltProject:
    """The image of a project."""

    def __init__(self, result: MintResult, builder: str, features: dict[str, str]) -> None:
        self.result = result
        self.builder = builder
        """What has built it; empty when it was there."""
        self.features = features
        """The features in it, in the order in which they were installed, with their digests."""


def read(folder: str, allowed: Sequence[str]) -> Project:
    """Return what the project in `folder` asks for; it may read the variables `allowed` of this process.

    Raises `UsageError`, `NotFoundError` and `DataError`.
    """
    from pathlib import Path

    from shed.images.devcontainer.project import read_project

    there = {name: os.environ[name] for name in allowed if name in os.environ}
    return read_project(Path(folder).absolute(), there, allowed)


def build_project(
    images: Images,
    project: Project,
    name: str,
    options: Options,
    *,
    writer: RootWriter | None = None,
    builder: str | None = None,
    lock: bool = False,
    force: bool = False,
) -> BuiltProject:
    """Have the image of `project` as `name`: the one that is there, if it was made of the same, or a new one.

    `builder` is its name, `lock` has the lock file written, and `force` builds in any case.
    """
    import contextlib

    from shed.images.builders.tools import choose_builder
    from shed.progress import Progress

    kit = images.kit()
    progress = Progress()
    with contextlib.ExitStack() as stack:
        screen = stack.enter_context(_Screen(options, progress))
        prepared = stack.enter_context(
            images.prepare_project(project, kit=kit, writer=writer, lock=lock, progress=progress)
        )
        for sentence in prepared.notes:
            progress.warn(f"{project.file.name}: {sentence}")
        features = {feature.name: str(feature.digest) for feature in prepared.features}
        if prepared.found is not None and not force:
            return BuiltProject(prepared.reuse(name), "", features)
        chosen = choose_builder(builder)
        archive, key = stack.enter_context(prepared.build(chosen, name, None if options.json else screen.pass_on))
        screen.show()
        result = images.mint(archive, name, kit=kit, writer=writer, force=force, progress=progress)
        prepared.note(key, result.manifest_digest)
    return BuiltProject(result, chosen.name, features)


class _Screen:
    """Shows progress until a builder says something, and that from then on."""

    def __init__(self, options: Options, progress: Progress) -> None:
        import contextlib

        self._options = options
        self._progress = progress
        self._shown = contextlib.ExitStack()
        self._pass_on = passing_on(2)

    def __enter__(self) -> _Screen:
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.close()

    def show(self) -> None:
        """Show progress from now on."""
        self._shown.close()
        self._progress.sink = self._shown.enter_context(shown(self._options))

    def pass_on(self, data: bytes) -> None:
        """Show what a builder says."""
        self._shown.close()
        self._progress.sink = lambda event: None
        self._pass_on(data)


def project_of_shed(args: Any, options: Options) -> ShedOptions:
    """Have the image of the project that ``--devcontainer`` names; return what its shed is asked to be by it.

    Without a repository and a folder, `args` get the project's folder to be mounted.  Raises `UsageError`.
    """
    from shed.config.paths import Paths
    from shed.config.server import machine_settings
    from shed.images.service import Images
    from shed.names import MAX_CPUS, MAX_MEMORY_MB, MAX_UPPER

    others = {"--image": args.image, "--from-snapshot": args.from_snapshot, "--prebuild": args.prebuild}
    if given := [name for name, value in others.items() if value is not None]:
        raise UsageError(f"--devcontainer makes the image, so it cannot be combined with {', '.join(given)}")
    refuse_server(options, "--devcontainer", "build it: shed image build --devcontainer DIR; push it; name it: --image")
    project = read(args.devcontainer, args.local_env)
    wanted, settings = project.requirements, machine_settings()
    found: ShedOptions = {
        "image": _image_name(project.folder),
        "cpus": args.cpus or _at_least(wanted.cpus, settings.default_cpus, MAX_CPUS, "cpus"),
        "memory_mb": args.memory
        or _at_least(_in_mib(wanted.memory), settings.default_memory_mb, MAX_MEMORY_MB, "MiB of memory"),
        "upper_size_bytes": args.upper_size
        or _at_least(wanted.storage, settings.default_upper_size, MAX_UPPER, "bytes of storage"),
    }
    _check_host(project, args)
    images = Images(Paths().images, settings)
    image = build_project(images, project, str(found["image"]), options)
    if not options.json:
        note(f"{found['image']} {'is up to date' if image.result.reused else 'is built'}")
        if extensions := project.extensions():
            note(f"  the project wants extensions in the editor: {' '.join(extensions)}")
        if project.ports:
            ports = " ".join(map(str, project.ports))
            note(f"  the project wants ports forwarded: shed forward {args.name or 'NAME'} {ports}")
    if args.repo is None and args.local_dir is None:
        args.local_dir = f"{project.folder}:rw"
    if project.local_env:
        found["env"] = dict(project.local_env)
    return found


def _check_host(project: Project, args: Any) -> None:
    """Refuse a project that asks for more than this machine has, where the command line does not say what to take."""
    from dataclasses import replace

    from shed.images.devcontainer.project import check_host

    wanted = replace(
        project.requirements,
        cpus=None if args.cpus else project.requirements.cpus,
        memory=None if args.memory else project.requirements.memory,
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    check_host(wanted, cpus=len(os.sched_getaffinity(0)), memory=memory)


def _at_least(wanted: int | None, usual: int, most: int, what: str) -> int | None:
    """Return what a shed is to have, which is no less than what any has; None where the project does not say.

    Raises `UsageError` for more than any can have.
    """
    if wanted is not None and wanted > most:
        raise UsageError(
            f"the project's hostRequirements want {wanted} {what}, and a shed can have {most}",
            hint="say what the shed is to have: --cpus N, --memory SIZE, --upper-size SIZE",
        )
    return None if wanted is None else max(wanted, usual)


def _in_mib(size: int | None) -> int | None:
    return None if size is None else -(-size // MIB)


def _image_name(folder: Path) -> str:
    """Return what the image of the project in `folder` is called: by the folder's name, and its place."""
    import hashlib

    word = "".join(c for c in folder.name if c.isascii() and (c.isalnum() or c in "._-"))[:40]
    return f"devcontainer-{word or 'project'}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"
