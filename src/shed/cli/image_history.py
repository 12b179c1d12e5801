"""`shed image history`, `shed image tag` and `shed image trust`, which the server does."""

from __future__ import annotations

from typing import Any

from shed.cli.connection import client
from shed.cli.options import Options
from shed.cli.output import done
from shed.cli.parsing import Parser
from shed.sizes import format_size
from shed.terminal.output import age, emit, say, table

_WIDTH = 60
"""Characters of a command that are shown without ``-v``."""


def history(words: list[str], options: Options) -> int:
    """Show what an image's layers were made by."""
    parser = Parser(
        "image history", "Show the steps that made an image, the last one first.  -v shows commands at full length."
    )
    parser.add_argument("image", metavar="IMAGE", help="name or digest")
    args = parser.parse(words, options)
    steps = client(options).image_history(args.image)
    if options.json:
        emit(steps)
    else:
        say(table(["CREATED", "CREATED BY", "SIZE", "COMMENT"], [_row(step, options) for step in steps]), end="")
    return 0


def _row(step: dict[str, Any], options: Options) -> list[str]:
    command = " ".join(str(step["created_by"]).split())
    if not options.verbose and len(command) > _WIDTH:
        command = command[: _WIDTH - 1] + "…"
    return [
        age(step["created"]),
        command or "-",
        format_size(step["size_bytes"]) if step["layer"] else "-",
        step["comment"],
    ]


def tag(words: list[str], options: Options) -> int:
    """Give an image another name."""
    parser = Parser(
        "image tag",
        "Give an image another name.  An image that was called so stays, without that name.",
        examples=["shed image tag base stable"],
    )
    parser.add_argument("source", metavar="IMAGE", help="name or digest")
    parser.add_argument("name", metavar="NAME", help="its new name")
    args = parser.parse(words, options)
    digest = client(options).tag_image(args.source, args.name)
    done(options, "tag", args.name, f"{args.name} is {digest[:19]}", digest=digest)
    return 0


def trust(words: list[str], options: Options) -> int:
    """Let the kernel and the initrd that an image brings boot."""
    parser = Parser(
        "image trust",
        "Let the kernel and the initrd that an image brings boot on the server's machine, in this image and in "
        "others, from now on.",
        examples=["shed image trust base"],
    )
    parser.add_argument("image", metavar="IMAGE", help="name, reference or digest")
    args = parser.parse(words, options)
    digests = client(options).trust_image(args.image)
    done(options, "trust", args.image, f"known from now on: {', '.join(digests)}", digests=digests)
    return 0
