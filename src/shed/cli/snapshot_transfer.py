"""`shed snapshot push | pull | save | load`: snapshots to and from registries and files."""

from __future__ import annotations

import sys

from shed.cli.arguments import argument, flag, option
from shed.cli.command import command
from shed.cli.connection import client, refuse_server
from shed.cli.output import done, shown, watched
from shed.errors import UsageError
from shed.terminal.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.budget import Limits
    from shed.cli.options import Options
    from shed.sheds.snapshotstore import SnapshotStore

_SNAPSHOT = argument("SNAPSHOT", "name of the snapshot")
_SEND_MEMORY = flag("--with-memory", "send what was in memory, too, with all secrets that are there")
_TAKE_MEMORY = flag("--with-memory", "take its memory, too, if you trust who made it as you trust a program")
_INSECURE = flag("--insecure", "connect to the registry without encryption")


@command(
    "snapshot push",
    _SNAPSHOT,
    argument("REFERENCE", "registry/repository[:tag]", key="destination"),
    _SEND_MEMORY,
    _INSECURE,
    examples=["shed snapshot push before-upgrade ghcr.io/me/dev:snapshot"],
)
def push(args: Any, options: Options) -> int:
    """Push a snapshot to a registry.  All that the shed has written goes with it, keys and tokens too.

    What the registry has already is not sent again.  The credentials are those of docker and podman.
    """
    from shed.sizes import format_size

    with watched(options, left="the server goes on") as sink:
        result = client(options).push_snapshot(
            args.snapshot, args.destination, with_memory=args.with_memory, insecure=args.insecure, on_event=sink
        )
    sent = f"{result['uploaded']} of {result['chunks']} chunks sent ({format_size(result['uploaded_bytes'])})"
    done(options, "push", args.snapshot, f"pushed {result['destination']}: {sent}", **_but_name(result))
    return 0


@command(
    "snapshot pull",
    argument("REFERENCE", "registry/repository[:tag][@digest]"),
    argument("SNAPSHOT", "name for it here (default: the last part of the repository)", count="?"),
    _TAKE_MEMORY,
    _INSECURE,
    examples=["shed snapshot pull ghcr.io/me/dev:snapshot", "shed snapshot pull ghcr.io/me/dev:snapshot monday"],
)
def pull(args: Any, options: Options) -> int:
    """Pull a snapshot from a registry.  A pull that was cut goes on where it was.

    The image that it was made from is pulled by itself.  The credentials are those of docker and podman.
    """
    from shed.sizes import format_size

    left = "the pull has ended; what is here is kept for the next one"
    with watched(options, left=left) as sink:
        result = client(options).pull_snapshot(
            args.reference, args.snapshot, with_memory=args.with_memory, insecure=args.insecure, on_event=sink
        )
    found = result["snapshot"]
    came = f"{result['fetched']} chunks fetched ({format_size(result['fetched_bytes'])})"
    done(options, "pull", found["name"], f"pulled {found['name']}: {came}", **result)
    if not found["lower_cached"] and not options.json:
        note(f"the image is not here: {found['source_image']} ({found['lower_digest']}); see: shed image pull --help")
    return 0


@command(
    "snapshot save",
    _SNAPSHOT,
    option("-o, --output", "FILE", "file to write; - is standard output", required=True),
    _SEND_MEMORY,
    examples=[
        "shed snapshot save before-upgrade -o upgrade.tar",
        "shed snapshot save monday -o - | ssh host shed snapshot load monday",
    ],
)
def save(args: Any, options: Options) -> int:
    """Write a snapshot of this machine to one file, an OCI archive.  No server is needed.

    All that the shed has written goes with it, keys and tokens too.
    """
    from pathlib import Path

    from shed.progress import Progress, Stop
    from shed.sheds.artifact.files import save_snapshot, save_to_file
    from shed.sizes import format_size

    refuse_server(options, "snapshot save")
    store, _ = _local()
    if args.output == "-":
        if options.json:
            raise UsageError(
                "--json and the snapshot cannot both go to standard output", hint="write it to a file: -o FILE"
            )
        if sys.stdout.isatty():
            raise UsageError("a snapshot is not for a terminal", hint="write it to a file: -o FILE")
        with shown(options) as sink:
            save_snapshot(store, args.snapshot, sys.stdout.buffer, Progress(sink), Stop(), memory=args.with_memory)
        return 0
    path = Path(args.output)
    with shown(options) as sink:
        digest = save_to_file(store, args.snapshot, path, Progress(sink), Stop(), memory=args.with_memory)
    size = path.stat().st_size
    saved = f"saved {args.snapshot} to {path} ({format_size(size)})"
    done(options, "save", args.snapshot, saved, file=str(path), size_bytes=size, digest=digest)
    return 0


@command(
    "snapshot load",
    argument("SNAPSHOT", "name for it here"),
    option("-i, --input", "FILE", "archive or layout folder (default: standard input)", default="-"),
    _TAKE_MEMORY,
    examples=["shed snapshot load monday -i upgrade.tar"],
)
def load(args: Any, options: Options) -> int:
    """Read a snapshot from a file that `shed snapshot save` wrote, onto this machine.  No server is needed."""
    from shed.progress import Progress, Stop
    from shed.sheds.artifact.receiving import load_snapshot

    refuse_server(options, "snapshot load")
    if args.input == "-" and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("there is no file on standard input", hint="name it: -i FILE")
    store, limits = _local()
    with shown(options) as sink:
        loaded = load_snapshot(
            store, args.input, args.snapshot, limits, memory=args.with_memory, progress=Progress(sink), stop=Stop()
        )
    digest = loaded.snapshot.lower_digest
    done(options, "load", args.snapshot, f"loaded {args.snapshot}", lower_digest=digest)
    return 0


def _local() -> tuple[SnapshotStore, Limits]:
    """Return the snapshots of this machine, and the limits in the settings of its server."""
    from shed.config.paths import Paths
    from shed.config.server import machine_settings
    from shed.sheds.snapshotstore import SnapshotStore

    return SnapshotStore(Paths()), machine_settings().limits


def _but_name(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "name"}
