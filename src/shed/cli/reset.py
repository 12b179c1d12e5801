"""`shed system reset`: this machine without anything of its server."""

from __future__ import annotations

import os

from shed.cli.arguments import flag
from shed.cli.command import command
from shed.cli.connection import client, refuse_server
from shed.cli.output import confirm, done, waiting, watched
from shed.errors import UsageError
from shed.terminal.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from shed.cli.options import Options


@command("system reset", flag("-f, --force", "do not ask for confirmation"), examples=["shed system reset"])
def reset(args: Any, options: Options) -> int:
    """Delete all sheds, images and other data of this machine's server, and what was downloaded for it.

    The server is stopped.  Your settings and your key, in ~/.shed, stay; so do folders given with --local-dir.
    """
    from shed.cli import caches
    from shed.cli.server import stop_own
    from shed.config.paths import Paths
    from shed.fsutil import locked
    from shed.sizes import format_size

    refuse_server(options, "system reset")
    paths = Paths()
    if not paths.data.exists():
        done(options, "reset", "system", f"there is nothing in {paths.data}")
        return 0
    _check(paths.data)
    server = client(options)
    with waiting(options, "looking at what there is"):
        names = sorted(str(shed["name"]) for shed in server.sheds())
        size = format_size(server.usage()["total"]["disk_bytes"])
    sheds = " ".join(
        [f"{len(names)} shed{'' if len(names) == 1 else 's'}", *([f"({', '.join(names)})"] if names else [])]
    )
    if not confirm(f"Delete {sheds}, all images and all else in {paths.data}, {size}?", options, force=args.force):
        note("Cancelled.")
        return 0
    for name in names:
        with watched(options) as sink:
            server.delete(name, force=True, on_event=sink)
    stop_own(options)
    with locked(paths.data / "server.lock", wait=False):  # no other server begins with what is going
        with waiting(options, f"deleting {paths.data}"):
            gone = [path for path in (paths.data, paths.run, caches.folder()) if caches.remove(path)]
    kept = os.path.isdir(os.path.expanduser("~/.shed"))  # noqa: PTH111, PTH112  few imports
    said = f"deleted {sheds}, {size}{'; your settings and your key are in ~/.shed' if kept else ''}"
    done(options, "reset", "system", said, sheds=names, folders=[str(path) for path in gone])
    return 0


def _check(data: Path) -> None:
    """Raise `UsageError` for a folder that is not surely the data of a server of ours."""
    if data.is_symlink() or data.stat().st_uid != os.geteuid() or not (data / "instances").is_dir():
        raise UsageError(
            f"{data} is not the data of a server of yours", hint="check SHED_DATA_DIR, or run this as the server's user"
        )
