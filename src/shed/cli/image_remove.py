"""`shed image rm | prune`: taking names away, and freeing the space of what has none."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from shed.cli.connection import client
from shed.cli.errors import report
from shed.cli.options import Options
from shed.cli.output import confirm, done
from shed.cli.parsing import Parser
from shed.client.client import Client
from shed.errors import ConflictError, DataError, NotFoundError
from shed.sizes import format_size
from shed.terminal.output import emit, note, say, table

_SHORT = len("sha256:") + 12


def remove(words: list[str], options: Options) -> int:
    """Remove images."""
    parser = Parser(
        "image rm",
        "Remove images.  A name is removed alone; a reference or a digest takes all names of its image with it.  "
        "The space is freed by `shed image prune`.  Asks on a terminal.",
        examples=["shed image rm base", "shed image ls -q | xargs -r -n1 shed image rm"],
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="name, reference or digest")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    args = parser.parse(words, options)
    server = client(options)
    removed: list[dict[str, Any]] = []
    code = 0
    ask = not args.force and (options.json or (sys.stdin and sys.stdin.isatty()))  # a script may go on: the blobs stay
    for image in args.images:
        try:
            if ask and not confirm(f'Delete image "{image}"{_size(server, image)}?', options, force=False):
                note("Cancelled.")
                continue
            answer = server.remove_image(image)
        except (NotFoundError, ConflictError) as error:  # the others are still meant
            report(error, options)
            code = error.exit_code
            continue
        removed.append({"name": image, **answer})
        if not options.json:
            _tell(image, answer)
    if options.json and (removed or not code):
        emit(
            {"status": "ok" if not code else "error", "action": "rm", "name": " ".join(args.images), "removed": removed}
        )
    return code


def _size(server: Client, image: str) -> str:
    with contextlib.suppress(DataError):  # what is damaged can be removed too
        size = server.image(image).get("size_bytes")
        return f" ({format_size(size)})" if isinstance(size, int) else ""
    return ""


def _tell(image: str, answer: dict[str, Any]) -> None:
    say(f"removed {image}")
    others = [name for key in ("tags", "references") for name in answer.get(key) or [] if name != image]
    if others:
        note(f"with it: {', '.join(map(str, others))}")
    for warning in answer.get("warnings") or []:
        note(f"warning: {warning}")


def prune(words: list[str], options: Options) -> int:
    """Free the space of what nobody needs."""
    parser = Parser(
        "image prune",
        "Remove the images that have no name and that no shed, no snapshot and no setting needs, and what is left of "
        "such images.",
    )
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    args = parser.parse(words, options)
    server = client(options)
    if args.dry_run or not args.force:
        plan = server.prune_images(dry_run=True)
        if args.dry_run and options.json:
            emit({**plan, "dry_run": True})
            return 0
        if not plan.get("deleted"):
            return _finished(plan, options)
        if not options.json:
            _preview(plan, options)
        if args.dry_run:
            note(f"would free {_bytes(plan)}")
            return 0
        if not confirm(f"Delete {_count(plan)} ({_bytes(plan)})?", options, force=False):
            note("Cancelled.")
            return 0
    return _finished(server.prune_images(), options)


def _preview(plan: dict[str, Any], options: Options) -> None:
    images = [] if options.verbose else [row for row in plan["deleted"] if row.get("kind") == "image"]
    rows = images or plan["deleted"]
    shown = [
        [str(row["kind"]), str(row["digest"])[:_SHORT], format_size(row["size_bytes"]), row.get("docker_ref") or "-"]
        for row in rows
    ]
    say(table(["KIND", "DIGEST", "SIZE", "REFERENCE"], shown), end="")


def _finished(answer: dict[str, Any], options: Options) -> int:
    sentence = f"deleted {_count(answer)}, freed {_bytes(answer)}" if answer.get("deleted") else "nothing to delete"
    done(options, "prune", "images", sentence, **answer)
    return 0


def _count(answer: dict[str, Any]) -> str:
    number = answer.get("images") or len(answer["deleted"])
    return f"{number} {'image' if answer.get('images') else 'blob'}{'' if number == 1 else 's'}"


def _bytes(answer: dict[str, Any]) -> str:
    return format_size(answer.get("size_bytes", 0))
