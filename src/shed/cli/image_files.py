"""`shed image save` and `shed image load`: images as files, from and to the store of this machine, with no server."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from shed.cli.options import Options, refuse_server
from shed.cli.output import shown
from shed.cli.parsing import Parser
from shed.config.paths import Paths
from shed.config.server import machine_settings
from shed.errors import UsageError
from shed.images.service import Images
from shed.progress import Progress
from shed.sizes import format_size
from shed.terminal.output import emit, note, say

_SHORT = len("sha256:") + 12


def save(words: list[str], options: Options) -> int:
    """Write images to a file."""
    parser = Parser(
        "image save",
        "Write images to one file, with all that they boot from and their layers: an OCI archive.  The same images "
        "give the same file.",
        examples=["shed image save base -o base.tar", "shed image save base full -o - | ssh host shed image load"],
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="name or digest")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="file to write; - is standard output")
    args = parser.parse(words, options)
    refuse_server(options, "image save")
    images = Images(Paths().images)
    if args.output == "-":
        _save_to_stdout(images, args.images, options)
        return 0
    path = Path(args.output)
    with shown(options) as sink:
        saved = images.save(args.images, path, Progress(sink))
    if options.json:
        size = path.stat().st_size
        emit(
            {
                "status": "ok",
                "action": "save",
                "file": str(path),
                "size_bytes": size,
                "images": [asdict(image) for image in saved],
            }
        )
    else:
        what = ", ".join(_called(image.name, image.digest) for image in saved)
        say(f"saved {what} to {path} ({format_size(path.stat().st_size)})")
    return 0


def _save_to_stdout(images: Images, names: list[str], options: Options) -> None:
    if options.json:
        raise UsageError(
            "--json and the images cannot both go to standard output", hint="write the images to a file: -o FILE"
        )
    if sys.stdout.isatty():
        raise UsageError(
            "an image is not for a terminal", hint="write it to a file: -o FILE, or pipe it into something"
        )
    with shown(options) as sink:
        images.save(names, sys.stdout.buffer, Progress(sink))


def load(words: list[str], options: Options) -> int:
    """Read images from a file."""
    parser = Parser(
        "image load",
        "Read images from a file that `shed image save` wrote.  All of it is verified before any of it is used.",
        examples=["shed image load -i base.tar", "ssh host shed image save base -o - | shed image load"],
    )
    parser.add_argument(
        "-i", "--input", metavar="FILE", default="-", help="archive or layout folder (default: standard input)"
    )
    parser.add_argument("-t", "--tag", metavar="NAME", help="what to call the image, when there is only one")
    parser.add_argument("-f", "--force", action="store_true", help="take names that other images have")
    parser.add_argument(
        "--trust-kernel", action="store_true", help="let the kernels and initrds that the images bring boot here"
    )
    args = parser.parse(words, options)
    refuse_server(options, "image load")
    if args.input == "-" and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("there is no file on standard input", hint="name it: -i FILE")
    with shown(options) as sink:
        wanted = {"tag": args.tag, "force": args.force, "trust_kernel": args.trust_kernel}
        loaded = Images(Paths().images, machine_settings()).load(args.input, **wanted, progress=Progress(sink))
    if options.json:
        emit({"status": "ok", "action": "load", "images": [asdict(image) for image in loaded]})
        return 0
    for image in loaded:
        say(f"loaded {_called(image.name, image.digest)}")
        if not image.layers and options.verbose:
            note(f"{image.digest[:_SHORT]} has no layers here: it boots, but nothing can be built from it")
    return 0


def _called(name: str, digest: str) -> str:
    return f"{name} ({digest[:_SHORT]})" if name else digest[:_SHORT]
