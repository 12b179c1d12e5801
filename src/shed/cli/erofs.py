"""`shed erofs check | ls | cat | dump`: EROFS images from the shell, with no kernel and no root."""

from __future__ import annotations

import os
import stat
import sys

from shed.cli.arguments import argument, flag, option
from shed.cli.command import Entry, Group, command
from shed.errors import UsageError
from shed.terminal.output import emit, say, table
from shed.text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from shed.cli.options import Options
    from shed.erofs.checker import Report
    from shed.erofs.extents import Extent
    from shed.erofs.inode import Inode
    from shed.erofs.reader import Image

erofs = Group(
    "erofs",
    "Check and read EROFS images, without a kernel and without root.",
    {
        "check": Entry("shed.cli.erofs:check", "say whether an image is valid, or which inode breaks which rule"),
        "ls": Entry("shed.cli.erofs:list_files", "list the files in an image"),
        "cat": Entry("shed.cli.erofs:cat", "write a file of an image to standard output"),
        "dump": Entry("shed.cli.erofs:dump", "show superblock, features and statistics, or all about one inode"),
    },
)
_FILE = argument("FILE", "the image")


@command(
    "erofs check",
    _FILE,
    flag("--data", "also decompress all data"),
)
def check(args: Any, options: Options) -> int:
    """Check an image.  The exit code is 1 when it breaks a rule; the inode and the rule are named."""
    from pathlib import Path

    from shed.erofs.checker import check_image
    from shed.erofs.errors import ErofsError
    from shed.erofs.reader import Image

    try:
        with Image.open(Path(args.file)) as image:
            report = check_image(image, data=args.data)
    except ErofsError as error:
        if not options.json:
            where = "" if args.file in error.message else f"{args.file}: "
            raise ErofsError(
                f"{where}{error.message} [{error.rule}]", rule=error.rule, nid=error.nid, hint=error.hint
            ) from None
        emit({"file": args.file, "valid": False, "rule": error.rule, "inode": error.nid, "message": error.message})
        return 1
    if options.json:
        emit({"file": args.file, "valid": True, **_statistics(report)})
    else:
        say(f"{args.file}: valid, {report.inodes} inodes, {report.extents} extents")
    return 0


@command(
    "erofs ls",
    flag("-l, --long", "also show mode, links, owner, size and time"),
    flag("-R, --recursive", "also list what is in the folders"),
    _FILE,
    argument("PATH", "a folder or file in the image (default: /)", count="?", default="/"),
    examples=["shed erofs ls -l root.erofs /etc", "shed erofs ls -R root.erofs"],
)
def list_files(args: Any, options: Options) -> int:
    """List the files in an image."""
    from pathlib import Path

    from shed.erofs.reader import Image

    with Image.open(Path(args.file)) as image:
        start = os.fsencode(args.path)
        listed = _list(image, start, recursive=args.recursive)
        if options.json:
            emit([_described(image, path, inode) for path, inode in listed])
            return 0
        for path, inode in listed:
            say(_long(image, path, inode) if args.long else visible(os.fsdecode(path)))
    return 0


@command("erofs cat", _FILE, argument("PATH", "a file in the image"))
def cat(args: Any, options: Options) -> int:
    """Write a file of an image to standard output.  Symlinks are followed inside the image."""
    from pathlib import Path

    from shed.erofs.errors import shown as shown_path
    from shed.erofs.reader import Image

    with Image.open(Path(args.file)) as image:
        inode = image.lookup(os.fsencode(args.path), follow=True)
        if not stat.S_ISREG(inode.mode):
            raise UsageError(f"{shown_path(os.fsencode(args.path).lstrip(b'/'))} is a {inode.kind}, not a file")
        sys.stdout.flush()
        for piece in image.chunks(inode):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return 0


def _inode_number(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    raise UsageError(f"{text!r} is not the number of an inode")


@command(
    "erofs dump",
    _FILE,
    option("--path", "PATH", "show the inode of this path; symlinks are not followed"),
    option("--nid", "N", "show the inode of this number", convert=_inode_number),
    examples=["shed erofs dump root.erofs", "shed erofs dump --path /usr/bin/python3 root.erofs"],
)
def dump(args: Any, options: Options) -> int:
    """Show superblock, features and statistics of an image, or all about one inode."""
    from pathlib import Path

    from shed.erofs.checker import check_image
    from shed.erofs.reader import Image

    if args.path is not None and args.nid is not None:
        raise UsageError("--path and --nid do not go together", hint="leave one out")
    with Image.open(Path(args.file)) as image:
        if args.path is not None or args.nid is not None:
            inode = image.inode(args.nid) if args.nid is not None else image.lookup(os.fsencode(args.path))
            shown = _inode_details(image, inode)
            extents = [_extent(extent) for extent in image.extents(inode)] if _has_data(inode) else []
            if options.json:
                emit({**shown, "extents": extents})
                return 0
            _print_fields(shown)
            if extents:
                say()
                say(table(list(extents[0]), [[str(value) for value in extent.values()] for extent in extents]), end="")
            return 0
        shown = {**_superblock(image), **_statistics(check_image(image))}
    if options.json:
        emit(shown)
    else:
        _print_fields(shown)
    return 0


def _list(image: Image, start: bytes, *, recursive: bool) -> Iterator[tuple[bytes, Inode]]:
    """Yield the entries of the directory `start`, with `recursive` all below it.

    When `start` is no directory, yield `start` itself.
    """
    inode = image.lookup(start, follow=True)
    if not stat.S_ISDIR(inode.mode):
        yield start, inode
    elif recursive:
        yield from ((path, below) for path, below in image.walk(inode) if path)
    else:
        yield from image.iterdir(inode)


def _long(image: Image, path: bytes, inode: Inode) -> str:
    device = inode.device
    size = f"{device[0]}, {device[1]}" if device else str(inode.size)
    arrow = f" -> {os.fsdecode(image.readlink(inode))}" if stat.S_ISLNK(inode.mode) else ""
    return (
        f"{stat.filemode(inode.mode)} {inode.nlink:>3} {inode.uid:>5} {inode.gid:>5} {size:>12} {_time(inode)} "
        f"{visible(os.fsdecode(path) + arrow)}"
    )


def _described(image: Image, path: bytes, inode: Inode) -> dict[str, Any]:
    """Return an inode for machines.

    Names that are not UTF-8 have their bytes as lone surrogates, as Python has them.
    """
    described: dict[str, Any] = {
        "path": os.fsdecode(path),
        "inode": inode.nid,
        "kind": inode.kind,
        "mode": f"{inode.mode & 0o7777:04o}",
        "links": inode.nlink,
        "uid": inode.uid,
        "gid": inode.gid,
        "size": inode.size,
        "modified": _time(inode),
    }
    if stat.S_ISLNK(inode.mode):
        described["target"] = os.fsdecode(image.readlink(inode))
    if inode.device:
        described["device"] = list(inode.device)
    return described


def _inode_details(image: Image, inode: Inode) -> dict[str, Any]:
    from shed.erofs import layout

    shown = _described(image, b"", inode)
    del shown["path"]
    return {
        **shown,
        "layout": layout.LAYOUT_NAMES[inode.layout],
        "record": "extended" if inode.extended else "compact",
        "offset": inode.offset,
        "xattrs": {os.fsdecode(name): value.hex() for name, value in image.xattrs(inode).items()},
    }


def _extent(extent: Extent) -> dict[str, Any]:
    from shed.erofs import layout
    from shed.erofs.extents import Form

    form = layout.ALGORITHM_NAMES[extent.algorithm] if extent.form == Form.ENCODED else extent.form.name.lower()
    return {
        "start": extent.start,
        "length": extent.length,
        "form": form,
        "position": extent.position,
        "stored": extent.stored,
    }


def _superblock(image: Image) -> dict[str, Any]:
    from shed.erofs import layout

    superblock = image.description.superblock
    text = superblock.uuid.hex()
    return {
        "magic": f"{superblock.magic:#010x}",
        "checksum": f"{superblock.checksum:#010x}",
        "uuid": "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])),
        "volume": superblock.volume_name.rstrip(b"\0").decode(errors="replace"),
        "block_size": layout.BLOCK_SIZE,
        "blocks": superblock.blocks,
        "root_inode": superblock.root_nid,
        "metadata_block": superblock.meta_blkaddr,
        "shared_xattr_block": superblock.xattr_blkaddr,
        "compression_settings": {
            layout.ALGORITHM_NAMES[number]: list(fields)
            for number, fields in sorted(image.description.settings.items())
        },
    }


def _statistics(report: Report) -> dict[str, Any]:
    return {
        "size": report.size,
        "logical_size": report.logical,
        "features": list(report.features),
        "algorithms": list(report.algorithms),
        "inodes": report.inodes,
        "names": report.names,
        "kinds": report.kinds,
        "layouts": report.layouts,
        "extents": report.extents,
        "compressed_extents": report.encoded,
        "xattrs": report.xattrs,
    }


def _print_fields(fields: dict[str, Any]) -> None:
    from shed.sizes import format_size

    width = max(map(len, fields))
    for name, value in fields.items():
        if isinstance(value, dict):
            text = ", ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list):
            text = ", ".join(map(str, value))
        elif name in ("size", "logical_size") and value >= 1024:
            text = f"{value} ({format_size(value)})"
        else:
            text = str(value)
        say(f"{name.replace('_', ' '):<{width}}  {visible(text) or '-'}")


def _has_data(inode: Inode) -> bool:
    return stat.S_IFMT(inode.mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


def _time(inode: Inode) -> str:
    """Return the time of an inode in RFC 3339, or the bare seconds when it is outside the calendar's range."""
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(inode.mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(inode.mtime)
