"""`shed image build | make | bootkit`: work on the store of this machine, done by this process, without a server."""

from __future__ import annotations

import os
import sys

from shed.cli.arguments import argument, flag, option
from shed.cli.command import Entry, Group, command
from shed.cli.connection import refuse_server
from shed.cli.image import SHORT
from shed.cli.making import LOCAL_ENV
from shed.cli.output import done, shown
from shed.errors import UsageError
from shed.terminal.output import note, passing_on, seconds, timings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from shed.cli.options import Options
    from shed.images.builders.base import BuildRequest
    from shed.images.mint import MintResult
    from shed.oci.descriptor import Platform


@command(
    "image build",
    argument("CONTEXT", "folder to build from (default: the current one)", count="?"),
    option("-n, --name", "NAME", "name of the image", required=True),
    option(
        "--devcontainer",
        "DIR",
        "build what the devcontainer.json of the project in DIR asks for, with its features",
        offers="folders",
        once=True,
    ),
    LOCAL_ENV,
    flag("--lock", "with --devcontainer: write which features it names to devcontainer-lock.json"),
    option(
        "-f, --file",
        "FILE",
        "Containerfile to use (default: Dockerfile.shed, Dockerfile or Containerfile in CONTEXT, the first of these "
        "that exists)",
    ),
    option("--target", "STAGE", "stage to build (default: the last one)"),
    option(
        "--build-arg",
        "K[=V]",
        "value of an ARG; K alone takes it from the environment; can be repeated",
        repeat=True,
    ),
    option("--builder", "NAME", "docker, podman or buildah (default: the first of these that works)"),
    option("--output-dir", "DIR", "keep the builder's archive there, as NAME.oci.tar"),
    option(
        "--from",
        "REF",
        "use this existing image, from a local container store, a registry or an archive",
        key="reference",
    ),
    flag("--insecure", "connect to the registry of --from without encryption"),
    option("--from-oci-archive", "FILE", "use this OCI archive, docker archive or layout folder; - is standard input"),
    option("--platform", "OS/ARCH", "platform to build for, or which image to take when there are several"),
    option("--compression", "METHOD", "zstd[:1-22] (default), lz4hc[:1-12], lz4 or none"),
    option(
        "--build-tools-version",
        "VERSION",
        "write the root file system with mkfs.erofs of this version: a release, a tag, or an image of the build tools",
    ),
    option("--source-ref", "REF", "reference to note in the image as its source", default=""),
    flag("--force", "do the work even when the store already has the result"),
    flag("--local", "build on this machine even when another server is configured"),
    examples=[
        "shed image build -n dev .",
        "shed image build -n dev --from docker.io/library/debian:13",
        "shed image build -n base --from-oci-archive base.tar",
        "shed image build -n project --devcontainer ~/src/project",
        "ssh builder cat base.tar | shed image build -n base --from-oci-archive -",
    ],
)
def build(args: Any, options: Options) -> int:
    """Make a bootable image from a Containerfile or from an existing OCI image.

    Its layers are combined into one EROFS root file system.  The image is stored on this machine.
    """
    import contextlib
    from dataclasses import replace
    from pathlib import Path

    from shed.config.paths import Paths
    from shed.config.server import machine_settings
    from shed.images.builders.tools import choose_builder
    from shed.images.service import Images
    from shed.images.sources import parse_source
    from shed.images.writers import choose_writer
    from shed.names import check_image_name
    from shed.oci.descriptor import Platform
    from shed.progress import Progress

    if not args.local:
        refuse_server(
            options, "image build", "add `-s local`, or --local, to build here; then: shed image push, or save and load"
        )
    _check_combination(args)
    check_image_name(args.name)
    platform = None if args.platform is None else Platform.parse(args.platform)
    writer = choose_writer(compression=args.compression, build_tools=args.build_tools_version)
    images = Images(Paths().images, machine_settings())
    if args.devcontainer is not None:
        from shed.cli.project import build_project, read

        project = read(args.devcontainer, args.local_env)
        how: dict[str, Any] = {"writer": writer, "builder": args.builder, "lock": args.lock, "force": args.force}
        built = build_project(images, project, args.name, options, **how)
        _built(built.result, options, {"builder": built.builder, "features": built.features})
        return 0
    request = _request(args, platform) if args.reference is None and args.from_oci_archive is None else None
    source = None if args.reference is None else parse_source(args.reference)
    kit = images.kit()
    progress = Progress()
    details: dict[str, object] = {}
    archive = None
    with contextlib.ExitStack() as stack:
        if request is not None:
            bases = images.bases(request)
            builder = choose_builder(args.builder)
            details |= {"builder": builder.name, "bases": {base.name: base.digest for base in bases}}
            progress.phase("build")
            if not options.json:
                for base in bases:
                    note(f"{base.name} is the image of this store, {base.digest[:SHORT]}, not one of a registry")
                note(f"building with {builder.name}")
            keep_in = None if args.output_dir is None else Path(args.output_dir)
            archive = stack.enter_context(
                images.build_archive(
                    builder, request, None if options.json else passing_on(2), bases=bases, keep_in=keep_in
                )
            )
        progress.sink = stack.enter_context(shown(options))
        if source is not None:
            args.source_ref = args.source_ref or source.source_ref
            archive = stack.enter_context(
                images.open_source(source, platform=platform, insecure=args.insecure, progress=progress)
            )
        how = {"kit": kit, "writer": writer, "platform": platform, "force": args.force}
        how |= {"progress": progress, "source_ref": args.source_ref}
        result = images.mint(archive or _archive(args.from_oci_archive), args.name, **how)
    if result.reused:
        result = replace(result, timings=progress.finish())
    _built(result, options, details)
    return 0


def _check_combination(args: Any) -> None:
    """Refuse options that name two sources of the image, or that the source does not use."""
    building = {
        "CONTEXT": args.context,
        "--file": args.file,
        "--target": args.target,
        "--build-arg": args.build_arg,
        "--builder": args.builder,
        "--output-dir": args.output_dir,
    }
    if args.devcontainer is not None:
        del building["--builder"]
        building |= {"--platform": args.platform, "--source-ref": args.source_ref}
    elif args.lock or args.local_env:
        raise UsageError("--lock and --local-env are for --devcontainer", hint="name the project: --devcontainer DIR")
    sources = {
        "--from-oci-archive": ("an archive", args.from_oci_archive),
        "--from": ("an image that exists", args.reference),
        "--devcontainer": ("what a project says", args.devcontainer),
    }
    for source, (what, value) in sources.items():
        if value is not None:
            given = [name for name, other in building.items() if other]
            given += [name for name, (_, other) in sources.items() if other is not None and name != source]
            if given:
                raise UsageError(
                    f"{source} uses {what} as it is, so it cannot be combined with {', '.join(given)}",
                    hint="leave one out",
                )


def _request(args: Any, platform: Platform | None) -> BuildRequest:
    from pathlib import Path

    from shed.images.builders.base import BuildRequest
    from shed.images.builders.build import find_file

    context = Path(args.context or ".").absolute()  # no builder takes it for an option
    return BuildRequest(
        context=context,
        file=find_file(context, args.file).absolute(),
        name=args.name,
        target=args.target,
        platform=platform,
        build_args=tuple(args.build_arg),
        epoch=os.environ.get("SOURCE_DATE_EPOCH"),
    )


def _archive(text: str) -> Path | str:
    from pathlib import Path

    if text != "-":
        return Path(text)
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("there is no archive on standard input", hint="pipe one in, or name a file")
    return text


def _built(result: MintResult, options: Options, details: Mapping[str, object]) -> None:
    from shed.sizes import format_size

    sentence = f"{result.name} is up to date"
    if not result.reused:
        sentence = f"built {result.name} in {seconds(sum(result.timings.values()))}"
    sizes = f"root {format_size(result.root_size)}, {format_size(result.logical_size)} unpacked"
    done(
        options,
        "build",
        result.name,
        f"{sentence}: {sizes}, {result.manifest_digest[:SHORT]}",
        digest=result.manifest_digest,
        root_digest=result.root_digest,
        root_size_bytes=result.root_size,
        logical_size_bytes=result.logical_size,
        layers_size_bytes=result.layers_size,
        timings=result.timings,
        reused=result.reused,
        **details,
    )
    if options.verbose and not options.json:
        note(timings(result.timings).rstrip("\n"))


@command(
    "image make",
    argument("RECIPE", "base, extensions or full, or a folder with a recipe of yours", offers="folders"),
    option("-n, --name", "NAME", "name of the image (default: the recipe's)"),
    option("-o, --output", "FILE", "write the OCI archive to this file, and keep nothing in the store"),
    option("--on", "FILE", "OCI archive of the image that the recipe builds on (default: that is made on the way)"),
    examples=["shed image make full", "shed image make base -o base.oci.tar", "shed image make ./my-recipe"],
)
def make(args: Any, options: Options) -> int:
    """Make an image from Debian packages by a recipe, without a container builder.

    base, extensions and full come with shed.  The image is stored on this machine.
    """
    refuse_server(options, "image make")
    make_image(args.recipe, options, name=args.name, output=args.output, parent=args.on)
    return 0


def make_image(
    recipe: str, options: Options, *, name: str | None = None, output: str | None = None, parent: str | None = None
) -> None:
    """Make an image by a recipe, put it into the store, or write it to the archive `output`, and say so."""
    import tempfile
    from pathlib import Path

    from shed.config.paths import Paths
    from shed.config.server import machine_settings
    from shed.fsutil import private_folder
    from shed.images.recipe import build_image, find_recipe, read_recipe
    from shed.images.service import Images
    from shed.names import check_image_name
    from shed.progress import Progress

    found = read_recipe(find_recipe(recipe))
    on = None if parent is None else Path(parent)
    if output is not None:
        with shown(options) as sink:
            digest = build_image(found, Path(output), on, progress=Progress(sink))
        done(options, "make", found.name, f"wrote {output}: {digest[:SHORT]}", path=output, digest=digest)
        return
    name = check_image_name(name or found.name)
    paths = Paths()
    private_folder(paths.data)
    with tempfile.TemporaryDirectory(prefix=".make-", dir=paths.data) as folder, shown(options) as sink:
        progress = Progress(sink)
        archive = Path(folder) / "image.oci.tar"
        images = Images(paths.images, machine_settings())
        kit = images.build_kit(progress=progress)
        build_image(found, archive, on, progress=progress)
        result = images.mint(archive, name, kit=kit, progress=progress)
    _built(result, options, {})


bootkit = Group(
    "image bootkit",
    "The boot kit: the kernel, initrd and agent that every image boots with.",
    {"build": Entry("shed.cli.image_build:build_bootkit", "make the boot kit from Debian packages, if it is missing")},
)


@command(
    "image bootkit build",
    flag("--locked", "use exactly the package versions that this release of shed was tested with"),
)
def build_bootkit(args: Any, options: Options) -> int:
    """Make the boot kit from Debian packages: kernel, initrd, and the runtime of the agent."""
    from shed.config.paths import Paths
    from shed.config.server import machine_settings
    from shed.images.service import Images
    from shed.progress import Progress

    refuse_server(options, "image bootkit build")
    paths = Paths()
    with shown(options) as sink:
        progress = Progress(sink)
        kit = Images(paths.images, machine_settings()).build_kit(progress=progress, locked=args.locked)
        spent = progress.finish()
    release = str(kit.record.get("kernel_release", "unknown"))
    done(
        options,
        "build",
        "bootkit",
        f"the boot kit is ready: Linux {release}",
        kernel=kit.kernel,
        initrd=kit.initrd,
        runtime=kit.runtime,
        release=release,
        timings=spent,
    )
    if options.verbose and not options.json:
        note(timings(spent).rstrip("\n"))
    return 0
