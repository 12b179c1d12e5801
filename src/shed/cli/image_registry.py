"""`shed image push` and `shed image pull`: the server does them, or this process with ``--local``."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

from shed.cli.connection import client
from shed.cli.options import Options
from shed.cli.output import done, shown, watched
from shed.cli.parsing import Parser
from shed.config.paths import Paths
from shed.config.server import machine_settings
from shed.errors import UsageError
from shed.images.service import Images
from shed.progress import Event, PhaseEvent, Progress
from shed.sizes import format_size
from shed.terminal.output import note, timings


def push(words: list[str], options: Options) -> int:
    """Push an image to a registry."""
    parser = Parser(
        "image push",
        "Push an image to a registry: what it boots from, its layers, its manifest.  Credentials are those of docker "
        "and podman.",
        examples=["shed image push base ghcr.io/me/base:v1"],
    )
    parser.add_argument("source", metavar="IMAGE", help="name or digest")
    parser.add_argument("destination", metavar="REFERENCE", help="registry/repository[:tag]")
    _common(parser)
    args = parser.parse(words, options)
    with shown(options) if args.local else watched(options, left="the server goes on") as sink:
        if args.local:
            images = Images(Paths().images, machine_settings())
            progress = Progress(sink)
            result = asdict(images.push(args.source, args.destination, insecure=args.insecure, progress=progress))
        else:
            result = client(options).push_image(args.source, args.destination, insecure=args.insecure, on_event=sink)
    exists = result["exists"] + result["mounted"]
    what = f"{result['uploaded']} blobs sent ({format_size(result['uploaded_bytes'])}), {exists} were there"
    _finished(options, "push", args.source, f"pushed {result['destination']}: {what}, {result['digest'][:19]}", result)
    return 0


def pull(words: list[str], options: Options) -> int:
    """Pull an image from a registry."""
    parser = Parser(
        "image pull",
        "Pull an image from a registry: what it boots from, and its layers if asked.  Credentials are those of docker "
        "and podman.",
        examples=["shed image pull ghcr.io/me/base:v1", "shed image pull ghcr.io/me/base:v1 --with-layers -t mine"],
    )
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository[:tag][@digest]")
    parser.add_argument(
        "-t", "--tag", metavar="NAME", help="what to call it (default: the last part of the repository)"
    )
    parser.add_argument("--platform", metavar="OS/ARCH", help="which image, when there are several")
    parser.add_argument(
        "--with-layers", action="store_true", help="fetch the layers too: to push the image again, or to build from it"
    )
    parser.add_argument(
        "--detach", action="store_true", help="return when the download has begun; the server goes on to its end"
    )
    parser.add_argument(
        "--trust-kernel", action="store_true", help="let the kernel and the initrd that the image brings boot here"
    )
    _common(parser)
    args = parser.parse(words, options)
    if args.detach:
        if args.local:
            raise UsageError(
                "--local and --detach do not go together", hint="the server goes on by itself; this process does not"
            )
        return _detached(args, options)
    with (
        shown(options)
        if args.local
        else watched(options, left="the pull has ended; what is here is kept for the next one") as sink
    ):
        wanted: dict[str, Any] = {"tag": args.tag, "with_layers": args.with_layers, "insecure": args.insecure}
        wanted["trust_kernel"] = args.trust_kernel
        if args.local:
            images = Images(Paths().images, machine_settings())
            result = asdict(images.pull(args.reference, platform=args.platform, progress=Progress(sink), **wanted))
        else:
            result = client(options).pull_image(args.reference, platform=args.platform, on_event=sink, **wanted)
    what = f"{result['fetched']} blobs fetched ({format_size(result['fetched_bytes'])}), {result['exists']} were here"
    _finished(options, "pull", result["tag"], f"pulled {result['tag']}: {what}, {result['digest'][:19]}", result)
    return 0


def _detached(args: Any, options: Options) -> int:
    """Have the server begin a pull, and leave."""

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


def _common(parser: Parser) -> None:
    parser.add_argument(
        "--local", action="store_true", help="do it in this process, on this machine's store, without a server"
    )
    parser.add_argument("--insecure", action="store_true", help="speak to the registry without encryption")


def _finished(options: Options, action: str, name: str, sentence: str, result: dict[str, Any]) -> None:
    done(options, action, name, sentence, **result)
    if options.verbose and not options.json:
        note(timings(result["timings"]).rstrip("\n"))
