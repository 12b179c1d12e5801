"""`shed image ls | inspect`."""

from __future__ import annotations

import sys
from typing import Any

from shed.cli.app import Command, dispatch
from shed.cli.connection import client
from shed.cli.options import Options
from shed.cli.output import emit, note, table
from shed.cli.parsing import Parser
from shed.config.sizes import format_size

COMMANDS = {
    "ls": Command("shed.cli.image:list_images", "list images"),
    "list": Command("shed.cli.image:list_images", "", "ls"),
    "inspect": Command("shed.cli.image:inspect", "show all that is known of an image"),
}


def main(words: list[str], options: Options) -> int:
    """Run a command about images."""
    return dispatch(COMMANDS, words, options, prefix="image ", about="The images that sheds are made from.")


def list_images(words: list[str], options: Options) -> int:
    """List images."""
    parser = Parser("image ls", "List the images in the server's store.")
    parser.add_argument("-q", "--quiet", action="store_true", help="names only, or short digests where there is no name")
    args = parser.parse(words, options)
    images = client(options).images()
    if options.json:
        emit(images)
    elif args.quiet:
        print("".join(f"{_text(image, 'name') or _text(image, 'digest')[:19]}\n" for image in images), end="")
    elif images or not sys.stdout.isatty():
        rows = [_row(image, options) for image in images]
        print(table(["IMAGE", "DIGEST", "SIZE", "SOURCE"], rows), end="")
    else:
        note("no images yet; make one: shed image build")
    return 0


def inspect(words: list[str], options: Options) -> int:
    """Show all that is known of an image."""
    parser = Parser("image inspect", "Show all that is known of an image, as JSON.")
    parser.add_argument("image", metavar="IMAGE", help="name or digest")
    args = parser.parse(words, options)
    emit(client(options).image(args.image))
    return 0


def _row(image: dict[str, Any], options: Options) -> list[str]:
    digest, size = _text(image, "digest"), image.get("size_bytes")
    return [
        _text(image, "name") or "-",
        digest if options.verbose else digest[:19],
        format_size(size) if isinstance(size, int) else "-",
        _text(image, "source_ref") or "-",
    ]


def _text(image: dict[str, Any], key: str) -> str:
    value = image.get(key)
    return value if isinstance(value, str) else ""
