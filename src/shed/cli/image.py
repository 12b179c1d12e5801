"""`shed image`: listing and inspecting, which the server does."""

from __future__ import annotations

import sys
from typing import Any

from shed.cli.app import Command, dispatch
from shed.cli.connection import client
from shed.cli.options import Options
from shed.cli.output import shown
from shed.cli.parsing import Parser
from shed.sizes import format_size
from shed.terminal.output import age, emit, note, say, table
from shed.text import visible

_SHORT = len("sha256:") + 12
COMMANDS = {
    "ls": Command("shed.cli.image:list_images", "list images"),
    "list": Command("shed.cli.image:list_images", "", "ls"),
    "inspect": Command("shed.cli.image:inspect", "show all that is known of an image"),
    "push": Command("shed.cli.image_registry:push", "send an image to a registry"),
    "pull": Command("shed.cli.image_registry:pull", "get an image from a registry"),
    "build": Command("shed.cli.image_build:build", "make a bootable image from a Containerfile or another image"),
    "rm": Command("shed.cli.image_remove:remove", "remove images by name, reference or digest"),
    "delete": Command("shed.cli.image_remove:remove", "", "rm"),
    "prune": Command("shed.cli.image_remove:prune", "free the space of what no name and no shed needs"),
    "save": Command("shed.cli.image_files:save", "write images to a file"),
    "load": Command("shed.cli.image_files:load", "read images from a file"),
    "verify": Command("shed.cli.image_verify:verify", "read an image again and say whether all of it is sound"),
    "history": Command("shed.cli.image_history:history", "show what an image's layers were made by"),
    "tag": Command("shed.cli.image_history:tag", "give an image another name"),
    "trust": Command("shed.cli.image_history:trust", "let the kernel that an image brings boot here"),
    "bootkit": Command("shed.cli.image_build:bootkit", "the kernel, initrd and agent that images boot with"),
}


def main(words: list[str], options: Options) -> int:
    """Run a command about images."""
    return dispatch(COMMANDS, words, options, prefix="image ", about="The images that sheds are made from.")


def list_images(words: list[str], options: Options) -> int:
    """List images."""
    parser = Parser("image ls", "List the images in the server's store.  -v shows whole digests, references and times.")
    parser.add_argument("-q", "--quiet", action="store_true", help="names only, or digests where there is no name")
    args = parser.parse(words, options)
    with shown(options) as sink:
        images = client(options).images(on_event=sink)
    if options.json:
        emit(images)
    elif args.quiet:
        say("".join(f"{_text(image, 'name') or _text(image, 'digest')}\n" for image in images), end="")
    elif images or not sys.stdout.isatty():
        headers = [
            "IMAGE",
            "DIGEST",
            "SOURCE",
            "SIZE",
            "LAYERS",
            "IN USE",
            *(["REFERENCE", "UPDATED"] if options.verbose else []),
        ]
        say(table(headers, [_row(image, options)[: len(headers)] for image in images]), end="")
    else:
        note("no images yet; make one: shed image build")
    for image in images:
        if (warning := _text(image, "warning")) and not options.json:
            note(f"warning: {_text(image, 'name') or _short(image)}: {visible(warning)}")
    return 0


def inspect(words: list[str], options: Options) -> int:
    """Show all that is known of an image."""
    parser = Parser("image inspect", "Show all that is known of an image, as JSON.")
    parser.add_argument("image", metavar="IMAGE", help="name or digest")
    args = parser.parse(words, options)
    emit(client(options).image(args.image))
    return 0


def _row(image: dict[str, Any], options: Options) -> list[str]:
    size = image.get("size_bytes")
    users = image.get("in_use")
    return [
        _text(image, "name") or "-",
        (_text(image, "digest") if options.verbose else _short(image)) or "-",
        _text(image, "source") or "-",
        format_size(size) if isinstance(size, int) else "-",
        (_text(image, "layers") or "-") if image.get("bootable") else "not bootable",
        ", ".join(map(str, users)) if isinstance(users, list) and users else "-",
        ", ".join(image.get("references") or []) or _text(image, "source_ref") or "-",
        age(_text(image, "updated_at")),
    ]


def _short(image: dict[str, Any]) -> str:
    return _text(image, "digest")[:_SHORT]


def _text(image: dict[str, Any], key: str) -> str:
    value = image.get(key)
    return value if isinstance(value, str) else ""
