"""`shed image build` and `shed image bootkit build`: work on the store of this machine, done by this process, with no server."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shed.cli.app import Command, dispatch
from shed.cli.options import Options, refuse_server
from shed.cli.output import done, shown
from shed.cli.parsing import Parser
from shed.config.paths import Paths
from shed.config.server import machine_settings
from shed.errors import UsageError
from shed.images.builders.base import BuildRequest
from shed.images.builders.build import DEFAULT_FILES, built, find_file
from shed.images.builders.choose import choose_builder
from shed.images.mint import MintResult, mint, mint_archive
from shed.images.service import Images
from shed.images.sources import open_source, parse_source
from shed.images.writers.choose import choose_writer
from shed.names import check_image_name
from shed.oci.descriptor import Platform
from shed.progress import Progress
from shed.sizes import format_size
from shed.terminal.output import note, passing_on, seconds, timings

BOOTKIT_COMMANDS = {
    "build": Command(
        "shed.cli.image_build:bootkit_build", "make the boot kit from Debian packages; does nothing when it is there"
    ),
}


def build(words: list[str], options: Options) -> int:
    """Make a bootable image from a Containerfile or from an image that exists."""
    parser = Parser(
        "image build",
        "Make a bootable image: the layers of an ordinary OCI image, built here or taken as they are, become one "
        "EROFS root file system.",
        examples=[
            "shed image build -n dev .",
            "shed image build -n dev --from docker.io/library/debian:13",
            "shed image build -n base --from-oci-archive base.tar",
            "ssh builder cat base.tar | shed image build -n base --from-oci-archive -",
        ],
    )
    parser.add_argument("context", metavar="CONTEXT", nargs="?", help="folder to build from (default: this one)")
    parser.add_argument("-n", "--name", metavar="NAME", required=True, help="what to call it")
    parser.add_argument(
        "-f", "--file", metavar="FILE", help=f"default: the first there is of {', '.join(DEFAULT_FILES)} in CONTEXT"
    )
    parser.add_argument("--target", metavar="STAGE", help="stage to build (default: the last)")
    parser.add_argument(
        "--build-arg",
        metavar="K[=V]",
        action="append",
        default=[],
        help="value of an ARG; K alone: from the environment",
    )
    parser.add_argument(
        "--builder", metavar="NAME", help="docker, podman or buildah (default: the first of these that works)"
    )
    parser.add_argument("--output-dir", metavar="DIR", help="keep what the builder made, as DIR/NAME.oci.tar")
    parser.add_argument(
        "--from",
        dest="reference",
        metavar="REF",
        help="use this image, of a local container store, a registry or an archive",
    )
    parser.add_argument("--insecure", action="store_true", help="speak to the registry of --from without encryption")
    parser.add_argument(
        "--from-oci-archive", metavar="FILE", help="use this OCI or docker archive, or layout folder; - is stdin"
    )
    parser.add_argument(
        "--platform", metavar="OS/ARCH", help="platform to build for, or which image when there are several"
    )
    parser.add_argument("--compression", metavar="HOW", help="zstd[:1-22] (default), lz4hc[:1-12], lz4 or none")
    parser.add_argument(
        "--build-tools-version",
        metavar="X",
        help="write with mkfs.erofs of this release, tag or image of the build tools",
    )
    parser.add_argument("--source-ref", metavar="REF", default="", help="the reference that this image is built for")
    parser.add_argument("--force", action="store_true", help="do the work even when the store has the result")
    parser.add_argument(
        "--local", action="store_true", help="use the store of this machine without its server, as is done anyhow"
    )
    args = parser.parse(words, options)
    if not args.local:
        refuse_server(
            options, "image build", "add `-s local`, or --local, to build here; then: shed image push, or save and load"
        )
    _check_combination(args)
    check_image_name(args.name)
    platform = None if args.platform is None else Platform.parse(args.platform)
    writer = choose_writer(compression=args.compression, build_tools=args.build_tools_version)
    images = Images(Paths().images, machine_settings())
    store = images.store
    request = _request(args, platform) if args.reference is None and args.from_oci_archive is None else None
    source = None if args.reference is None else parse_source(args.reference)
    kit = images.kit()
    progress = Progress()
    details: dict[str, object] = {}
    archive = None
    with contextlib.ExitStack() as stack:
        if request is not None:
            builder = choose_builder(args.builder)
            details["builder"] = builder.name
            progress.phase("build")
            if not options.json:
                note(f"building with {builder.name}")
            keep_in = None if args.output_dir is None else Path(args.output_dir)
            archive = stack.enter_context(
                built(builder, request, store, None if options.json else passing_on(2), keep_in=keep_in)
            )
        progress.sink = stack.enter_context(shown(options))
        if source is not None:
            args.source_ref = args.source_ref or source.source_ref
            archive = stack.enter_context(
                open_source(source, store=store, platform=platform, insecure=args.insecure, progress=progress)
            )
        how: dict[str, Any] = {
            "kit": kit,
            "writer": writer,
            "platform": platform,
            "force": args.force,
            "progress": progress,
        }
        how["source_ref"] = args.source_ref
        if archive is None:
            result = mint_archive(store, _archive(args.from_oci_archive), args.name, **how)
        else:
            result = mint(store, archive, args.name, **how)
    if result.reused:
        result = replace(result, timings=progress.finish())
    _built(result, options, details)
    return 0


def _check_combination(args: Any) -> None:
    """Refuse options that say twice, or say nothing about, where the image comes from."""
    building = {
        "CONTEXT": args.context,
        "--file": args.file,
        "--target": args.target,
        "--build-arg": args.build_arg,
        "--builder": args.builder,
        "--output-dir": args.output_dir,
    }
    for option, value in {"--from-oci-archive": args.from_oci_archive, "--from": args.reference}.items():
        if value is not None:
            given = [name for name, other in building.items() if other]
            if option == "--from-oci-archive" and args.reference is not None:
                given.append("--from")
            if given:
                what = "an image that exists" if option == "--from" else "an archive"
                raise UsageError(
                    f"{option} takes {what} as it is: it cannot be combined with {', '.join(given)}",
                    hint="leave one out",
                )


def _request(args: Any, platform: Platform | None) -> BuildRequest:
    context = Path(args.context or ".").absolute()  # no builder takes it for an option
    return BuildRequest(
        context=context,
        file=find_file(context, args.file),
        name=args.name,
        target=args.target,
        platform=platform,
        build_args=tuple(args.build_arg),
        epoch=os.environ.get("SOURCE_DATE_EPOCH"),
    )


def _archive(text: str) -> Path | str:
    if text != "-":
        return Path(text)
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("there is no archive on standard input", hint="pipe one in, or name a file")
    return text


def _built(result: MintResult, options: Options, details: Mapping[str, object]) -> None:
    sentence = f"{result.name} is up to date"
    if not result.reused:
        sentence = f"built {result.name} in {seconds(sum(result.timings.values()))}"
    sizes = f"root {format_size(result.root_size)}, {format_size(result.logical_size)} unpacked"
    done(
        options,
        "build",
        result.name,
        f"{sentence}: {sizes}, {result.manifest_digest[:19]}",
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


def bootkit(words: list[str], options: Options) -> int:
    """Run a command about the boot kit."""
    about = "The boot kit: the kernel, initrd and agent that every image boots with."
    return dispatch(BOOTKIT_COMMANDS, words, options, prefix="image bootkit ", about=about)


def bootkit_build(words: list[str], options: Options) -> int:
    """Make the boot kit."""
    parser = Parser(
        "image bootkit build", "Make the boot kit from Debian packages: kernel, initrd, and the runtime of the agent."
    )
    parser.add_argument(
        "--locked",
        action="store_true",
        help="use exactly the package versions that this version of shed was tested with",
    )
    args = parser.parse(words, options)
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
