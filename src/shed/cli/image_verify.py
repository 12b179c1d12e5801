"""`shed image verify`: the server reads its store again, or this process reads this machine's with ``--local``."""

from __future__ import annotations

from typing import Any

from shed.cli.connection import client
from shed.cli.options import Options
from shed.cli.output import shown
from shed.cli.parsing import Parser
from shed.config.paths import Paths
from shed.errors import DataError
from shed.images.service import Images
from shed.progress import Progress
from shed.sizes import format_size
from shed.terminal.output import emit, note, say, table, timings


def verify(words: list[str], options: Options) -> int:
    """Verify an image; exit code 1 when it is damaged."""
    parser = Parser(
        "image verify",
        "Read an image again: compare its blobs with their digests, and check every inode of its file systems.  "
        "Exit code 1 when something is wrong; the blob, or the inode and the rule, is named.",
        examples=["shed image verify base", "shed image verify base --deep"],
    )
    parser.add_argument("image", metavar="IMAGE", help="name or digest")
    parser.add_argument(
        "--deep", action="store_true", help="compare every name, attribute and byte of the root with the layers, too"
    )
    parser.add_argument(
        "--local", action="store_true", help="do it in this process, on this machine's store, without a server"
    )
    args = parser.parse(words, options)
    with shown(options) as sink:
        if args.local:
            images = Images(Paths().images)
            result = images.verify(args.image, deep=args.deep, progress=Progress(sink)).to_json()
        else:
            result = client(options).verify_image(args.image, deep=args.deep, on_event=sink)
    if options.json:
        emit(result)
        return 0 if result["valid"] else 1
    say(table(["CHECK", "RESULT", "WHAT"], [_row(check) for check in result["checks"]]), end="")
    if options.verbose:
        note(timings(result["timings"]).rstrip("\n"))
    if not result["valid"]:
        first = next(check for check in result["checks"] if check["status"] == "FAIL")
        hint = "build or pull the image again; a shed that was made from it may hold wrong files"
        raise DataError(f"{args.image} is damaged: {first['name']}: {first['detail']}", code="IMAGE_DAMAGED", hint=hint)
    return 0


def _row(check: dict[str, Any]) -> list[str]:
    counts = dict(check["counts"])
    size = [format_size(counts.pop("bytes"))] if "bytes" in counts else []
    seen = ", ".join([*(f"{number} {what}" for what, number in counts.items()), *size])
    return [check["name"], check["status"], "; ".join(filter(None, [seen, check["detail"]]))]
