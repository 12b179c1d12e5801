"""`shed image build` and `shed image bootkit build`: work on the store of this machine, done by this process, with no server."""

from __future__ import annotations

import sys
from pathlib import Path

from shed.cli.app import Command, dispatch
from shed.cli.options import Options
from shed.cli.output import done, note, seconds, timings
from shed.cli.parsing import Parser
from shed.cli.progress import shown
from shed.config.paths import Paths
from shed.config.sizes import format_size
from shed.errors import UsageError
from shed.images.bootkit.build import build_kit
from shed.images.bootkit.kit import load_kit
from shed.images.mint import MintResult, mint_archive
from shed.images.writers.choose import choose_writer
from shed.oci.descriptor import Platform
from shed.oci.store import LayoutStore
from shed.progress import Progress

BOOTKIT_COMMANDS = {
    "build": Command("shed.cli.image_build:bootkit_build", "make the boot kit from Debian packages; does nothing when it is there"),
}


def build(words: list[str], options: Options) -> int:
    """Make a bootable image from an OCI archive."""
    parser = Parser(
        "image build",
        "Make a bootable image: the layers of an ordinary OCI image become one EROFS root file system.",
        examples=["shed image build --from-oci-archive base.tar -n base", "skopeo copy ... oci-archive:/dev/stdout | shed image build ..."],
    )
    parser.add_argument("-n", "--name", metavar="NAME", required=True, help="what to call it")
    parser.add_argument("--from-oci-archive", metavar="FILE", required=True, help="OCI archive or layout folder; - reads standard input")
    parser.add_argument("--compression", metavar="HOW", help="lz4 (default), lz4hc[:1-12], zstd[:1-22] or none")
    parser.add_argument("--platform", metavar="OS/ARCH", help="which image, when the archive holds several")
    parser.add_argument("--source-ref", metavar="REF", default="", help="the reference that this image is built for")
    parser.add_argument("--force", action="store_true", help="do the work even when the store has the result")
    parser.add_argument("--build-tools-version", metavar="X", help="write with mkfs.erofs of this release, tag or image of the build tools")
    args = parser.parse(words, options)
    platform = None if args.platform is None else Platform.parse(args.platform)
    source = _source(args.from_oci_archive)
    writer = choose_writer(compression=args.compression, build_tools=args.build_tools_version)
    store = LayoutStore(Paths().images)
    kit = load_kit(store)
    with shown(options) as sink:
        result = mint_archive(
            store,
            source,
            args.name,
            kit=kit,
            writer=writer,
            platform=platform,
            source_ref=args.source_ref,
            force=args.force,
            progress=Progress(sink),
        )
    _built(result, options)
    return 0


def _source(text: str) -> Path | str:
    if text != "-":
        return Path(text)
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("there is no archive on standard input", hint="pipe one in, or name a file")
    return text


def _built(result: MintResult, options: Options) -> None:
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
    )
    if options.verbose and not options.json:
        sys.stderr.write(timings(result.timings))


def bootkit(words: list[str], options: Options) -> int:
    """Run a command about the boot kit."""
    about = "The boot kit: the kernel, initrd and agent that every image boots with."
    return dispatch(BOOTKIT_COMMANDS, words, options, prefix="image bootkit ", about=about)


def bootkit_build(words: list[str], options: Options) -> int:
    """Make the boot kit."""
    parser = Parser("image bootkit build", "Make the boot kit from Debian packages: kernel, initrd, and the runtime of the agent.")
    parser.add_argument("--locked", action="store_true", help="use exactly the package versions that this version of shed was tested with")
    args = parser.parse(words, options)
    paths = Paths()
    with shown(options) as sink:
        progress = Progress(sink)
        kit = build_kit(LayoutStore(paths.images), progress=progress, locked=args.locked)
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
