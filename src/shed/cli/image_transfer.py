"""`shed image push | pull | save | load`: images to and from registries and files."""

from __future__ import annotations

import sys

from shed.cli.arguments import argument, flag, option
from shed.cli.command import command
from shed.cli.connection import client, refuse_server
from shed.cli.image import SHORT
from shed.cli.output import done, shown, watched
from shed.errors import UsageError
from shed.terminal.output import emit, note, say, timings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options
    from shed.images.service import Images
    from shed.progress import Event

_LOCAL = flag("--local", "use this machine's store, in this process, without a server")
_INSECURE = flag("--insecure", "connect to the registry without encryption")


def _images(*, writing: bool = True) -> Images:
    """Return the images of this machine; only `writing` needs the limits in the settings of its server."""
    from shed.config.paths import Paths
    from shed.config.server import machine_settings
    from shed.images.service import Images

    return Images(Paths().images, machine_settings()) if writing else Images(Paths().images)


@command(
    "image push",
    argument("IMAGE", "name or digest of an image", key="source"),
    argument("REFERENCE", "registry/repository[:tag]", key="destination"),
    _LOCAL,
    _INSECURE,
    examples=["shed image push base ghcr.io/me/base:v1"],
)
def push(args: Any, options: Options) -> int:
    """Push an image to a registry: what it boots from, its layers, and its manifest.

    The credentials are those of docker and podman.
    """
    from shed.sizes import format_size

    with shown(options) if args.local else watched(options, left="the server goes on") as sink:
        if args.local:
            from dataclasses import asdict

            from shed.progress import Progress

            progress = Progress(sink)
            result = asdict(_images().push(args.source, args.destination, insecure=args.insecure, progress=progress))
        else:
            result = client(options).push_image(args.source, args.destination, insecure=args.insecure, on_event=sink)
    exists = result["exists"] + result["mounted"]
    what = f"{result['uploaded']} blobs sent ({format_size(result['uploaded_bytes'])}), {exists} were there"
    _finished(
        options, "push", args.source, f"pushed {result['destination']}: {what}, {result['digest'][:SHORT]}", result
    )
    return 0


@command(
    "image pull",
    argument("REFERENCE", "registry/repository[:tag][@digest]"),
    option("-t, --tag", "NAME", "name for the image here (default: the last part of the repository)"),
    option("--platform", "OS/ARCH", "which image to take when there are several"),
    flag("--with-layers", "fetch the layers too, so that the image can be pushed again or built from"),
    flag("--detach", "return when the download has begun; the server goes on with it"),
    flag("--trust-kernel", "allow the kernel and the initrd that the image brings to boot on the server"),
    _LOCAL,
    _INSECURE,
    examples=["shed image pull ghcr.io/me/base:v1", "shed image pull ghcr.io/me/base:v1 --with-layers -t mine"],
)
def pull(args: Any, options: Options) -> int:
    """Pull an image from a registry: what it boots from, and its layers if asked.

    The credentials are those of docker and podman.
    """
    from shed.sizes import format_size

    if args.detach:
        if args.local:
            raise UsageError(
                "--local and --detach do not go together", hint="the server goes on by itself; this process does not"
            )
        return _detached(args, options)
    left = "the pull has ended; what is here is kept for the next one"
    with shown(options) if args.local else watched(options, left=left) as sink:
        wanted: dict[str, Any] = {"tag": args.tag, "with_layers": args.with_layers, "insecure": args.insecure}
        wanted["trust_kernel"] = args.trust_kernel
        if args.local:
            from dataclasses import asdict

            from shed.progress import Progress

            result = asdict(_images().pull(args.reference, platform=args.platform, progress=Progress(sink), **wanted))
        else:
            result = client(options).pull_image(args.reference, platform=args.platform, on_event=sink, **wanted)
    what = f"{result['fetched']} blobs fetched ({format_size(result['fetched_bytes'])}), {result['exists']} were here"
    _finished(options, "pull", result["tag"], f"pulled {result['tag']}: {what}, {result['digest'][:SHORT]}", result)
    return 0


def _detached(args: Any, options: Options) -> int:
    """Have the server begin a pull, and leave."""
    import contextlib

    from shed.progress import PhaseEvent

    def leave(event: Event) -> None:
        sink(event)
        if isinstance(event, PhaseEvent) and event.name == "blobs":
            raise _Begun

    with contextlib.suppress(_Begun), watched(options, left="the server goes on; see: shed image ls") as sink:
        client(options).pull_image(
            args.reference,
            tag=args.tag,
            platform=args.platform,
            with_layers=args.with_layers,
            insecure=args.insecure,
            trust_kernel=args.trust_kernel,
            detach=True,
            on_event=leave,
        )
    done(options, "pull", args.reference, f"the server is pulling {args.reference}; see: shed image ls", detached=True)
    return 0


class _Begun(Exception):  # noqa: N818  no error
    """The server has found the image, and downloads it."""


def _finished(options: Options, action: str, name: str, sentence: str, result: dict[str, Any]) -> None:
    done(options, action, name, sentence, **result)
    if options.verbose and not options.json:
        note(timings(result["timings"]).rstrip("\n"))


@command(
    "image save",
    argument("IMAGE", "name or digest of an image", key="images", count="+"),
    option("-o, --output", "FILE", "file to write; - is standard output", required=True),
    examples=["shed image save base -o base.tar", "shed image save base full -o - | ssh host shed image load"],
)
def save(args: Any, options: Options) -> int:
    """Write images to one file, an OCI archive, with all that they boot from and their layers.

    The images come from this machine's store; no server is needed.  The same images always give the same file.
    """
    refuse_server(options, "image save")
    if args.output == "-":
        _save_to_stdout(args.images, options)
        return 0
    from dataclasses import asdict
    from pathlib import Path

    from shed.progress import Progress
    from shed.sizes import format_size

    path = Path(args.output)
    with shown(options) as sink:
        saved = _images(writing=False).save(args.images, path, Progress(sink))
    size = path.stat().st_size
    if options.json:
        images = [asdict(image) for image in saved]
        emit({"status": "ok", "action": "save", "file": str(path), "size_bytes": size, "images": images})
    else:
        what = ", ".join(_called(image.name, image.digest) for image in saved)
        say(f"saved {what} to {path} ({format_size(size)})")
    return 0


def _save_to_stdout(names: list[str], options: Options) -> None:
    from shed.progress import Progress

    if options.json:
        raise UsageError(
            "--json and the images cannot both go to standard output", hint="write the images to a file: -o FILE"
        )
    if sys.stdout.isatty():
        raise UsageError(
            "an image is not for a terminal", hint="write it to a file: -o FILE, or pipe it into something"
        )
    with shown(options) as sink:
        _images(writing=False).save(names, sys.stdout.buffer, Progress(sink))


@command(
    "image load",
    option("-i, --input", "FILE", "archive or layout folder (default: standard input)", default="-"),
    option("-t, --tag", "NAME", "name for the image; only when the file has one image"),
    flag("-f, --force", "take names away from other images"),
    flag("--trust-kernel", "allow the kernels and initrds that the images bring to boot here"),
    examples=["shed image load -i base.tar", "ssh host shed image save base -o - | shed image load"],
)
def load(args: Any, options: Options) -> int:
    """Read images from a file that `shed image save` wrote, into this machine's store.

    Everything is verified before any of it is used.
    """
    refuse_server(options, "image load")
    if args.input == "-" and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("there is no file on standard input", hint="name it: -i FILE")
    from dataclasses import asdict

    from shed.progress import Progress

    with shown(options) as sink:
        wanted = {"tag": args.tag, "force": args.force, "trust_kernel": args.trust_kernel}
        loaded = _images().load(args.input, **wanted, progress=Progress(sink))
    if options.json:
        emit({"status": "ok", "action": "load", "images": [asdict(image) for image in loaded]})
        return 0
    for image in loaded:
        say(f"loaded {_called(image.name, image.digest)}")
        if not image.layers and options.verbose:
            note(f"{image.digest[:SHORT]} has no layers here: it boots, but nothing can be built from it")
    return 0


def _called(name: str, digest: str) -> str:
    return f"{name} ({digest[:SHORT]})" if name else digest[:SHORT]
