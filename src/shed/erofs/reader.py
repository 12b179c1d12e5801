"""Reading an image: names, inodes, xattrs and data.

Nothing in the image is trusted.  A pointer that leads outside, a directory that loops or data that does not decode ends
in an `ErofsError` that names the inode and the rule.  Memory stays bounded by one physical cluster (at most 12 MiB
decoded), whatever the image claims.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType

from shed.entries import MAX_PATH
from shed.erofs import layout
from shed.erofs.compression import decode
from shed.erofs.directories import Dirent, parse_directory
from shed.erofs.errors import ErofsError, shown
from shed.erofs.extents import Extent, Form, extents
from shed.erofs.image_file import ImageFile
from shed.erofs.inode import Inode, load_inode
from shed.erofs.superblock import Description, read_description
from shed.erofs.xattrs import Prefixes, locate_xattrs, read_prefixes, read_xattrs
from shed.errors import NotFoundError

_PIECE = 1 << 20
_MAX_LINKS = 40
"""Symlinks followed in one lookup, as in Linux."""


class Image:
    """An EROFS image open for reading; a context manager.  Its methods may be called from several threads at once."""

    def __init__(self, file: ImageFile, description: Description) -> None:
        self.file = file
        self.description = description

    @classmethod
    def open(cls, path: Path) -> Image:
        """Open the image `path`; raises `NotFoundError`, or `ErofsError` when it is not an image that we read."""
        file = ImageFile(path)
        try:
            return cls(file, read_description(file))
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def root(self) -> Inode:
        """The root directory."""
        return self.inode(self.description.superblock.root_nid)

    def inode(self, nid: int) -> Inode:
        """Return inode number `nid`; raises `ErofsError` when there is none, or when it points outside the image."""
        return load_inode(self.file, self.description, nid)

    # Names.

    def entries(self, directory: Inode) -> Iterator[Dirent]:
        """Yield the entries of `directory` in their order, `.` and `..` too.

        Raises `ErofsError` when `directory` is not a directory, or is malformed.
        """
        if not stat.S_ISDIR(directory.mode):
            raise ErofsError(f"a {directory.kind}, not a directory", rule="not-a-directory", nid=directory.nid)
        return parse_directory(self._blocks(directory), directory.nid)

    def iterdir(self, directory: Inode) -> Iterator[tuple[bytes, Inode]]:
        """Yield the names in `directory` and their inodes, sorted by name."""
        for entry in self.entries(directory):
            if entry.name not in (b".", b".."):
                inode = self.inode(entry.nid)
                if layout.FILE_TYPES[inode.type] != entry.file_type:
                    raise ErofsError(
                        f"directory entry {entry.name!r} calls a {inode.kind} something else",
                        rule="dirent-type",
                        nid=directory.nid,
                    )
                yield entry.name, inode

    def lookup(self, path: bytes, *, follow: bool = False) -> Inode:
        """Return the inode at `path`, from the root; raises `NotFoundError`.

        Without `follow`, a symlink is not followed, wherever it is in the path.  With `follow`, symlinks, `.` and `..`
        are, and never lead out of the image.
        """
        inode = self.root
        above: list[Inode] = []
        parts = [part for part in reversed(path.split(b"/")) if part]
        links = 0
        while parts:
            part = parts.pop()
            if follow and part in (b".", b".."):
                inode = above.pop() if part == b".." and above else inode
                continue
            found = self._find(inode, part, path)
            if not follow or not stat.S_ISLNK(found.mode):
                above.append(inode)
                inode = found
                continue
            links += 1
            if links > _MAX_LINKS:
                raise NotFoundError(f"too many symlinks in {shown(path.lstrip(b'/'))}")
            target = self.readlink(found)
            if target.startswith(b"/"):
                inode, above = self.root, []
            parts.extend(part for part in reversed(target.split(b"/")) if part)
        return inode

    def _find(self, directory: Inode, name: bytes, path: bytes) -> Inode:
        if stat.S_ISDIR(directory.mode):
            for entry in self.entries(directory):
                if entry.name == name and name not in (b".", b".."):
                    return self.inode(entry.nid)
        raise NotFoundError(f"{shown(path.lstrip(b'/'))} is not in {self.file.path}")

    def walk(self, top: Inode | None = None) -> Iterator[tuple[bytes, Inode]]:
        """Yield path and inode of the directory `top` (the root) and everything below it, parents first, names sorted.

        Paths are relative to `top`, which itself is ``b""``.  Raises `ErofsError` when a directory has two names
        (``directory-loop``), and when a path is longer than `MAX_PATH` (``path-too-long``): paths of an image that is
        nested without end would fill the memory.
        """
        top = top or self.root
        seen = {top.nid}
        yield b"", top
        if not stat.S_ISDIR(top.mode):
            return
        stack = [(b"", self.iterdir(top))]
        while stack:
            prefix, below = stack[-1]
            for name, inode in below:
                path = prefix + name
                if len(path) > MAX_PATH:
                    raise ErofsError(f"a path has more than {MAX_PATH} bytes", rule="path-too-long", nid=inode.nid)
                yield path, inode
                if stat.S_ISDIR(inode.mode):
                    if inode.nid in seen:
                        raise ErofsError(
                            f"directory {name!r} is in the tree already", rule="directory-loop", nid=inode.nid
                        )
                    seen.add(inode.nid)
                    stack.append((path + b"/", self.iterdir(inode)))
                    break
            else:
                stack.pop()

    # Data.

    def extents(self, inode: Inode, offset: int = 0) -> Iterator[Extent]:
        """Yield the extents of `inode` from the one that holds byte `offset`."""
        return extents(self.file, self.description, inode, offset)

    def extent_data(self, inode: Inode, extent: Extent) -> bytes:
        """Return the whole data of an extent of `inode`.  The caller must know that it fits into memory."""
        if extent.form == Form.HOLE:
            return bytes(extent.length)
        if extent.form == Form.FRAGMENT:
            return self._fragment(inode, extent, 0, extent.length)
        if extent.form == Form.VERBATIM:
            return self.file.data(extent.position, extent.length, nid=inode.nid)
        stored = self.file.data(extent.position, extent.stored, nid=inode.nid)
        if extent.form == Form.INTERLACED:
            cut = extent.stored - (layout.BLOCK_SIZE - extent.start % layout.BLOCK_SIZE)
            return (stored[cut:] + stored[:cut])[: extent.length]
        return decode(
            extent.algorithm,
            stored,
            extent.length,
            zero_padding=self.description.zero_padding,
            partial=extent.partial,
            window=self.description.zstd_window,
            nid=inode.nid,
        )

    def read(self, inode: Inode, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; fewer only at the end of the file."""
        pieces = []
        end = min(offset + length, inode.size)
        for extent in self.extents(inode, offset):
            if extent.start >= end:
                break
            start, stop = max(offset - extent.start, 0), min(end - extent.start, extent.length)
            if stop > start:
                pieces.append(self.part(inode, extent, start, stop))
        return b"".join(pieces)

    def part(self, inode: Inode, extent: Extent, start: int, stop: int) -> bytes:
        """Return bytes `start` to `stop` of an extent of `inode`.

        A compressed extent is decoded as a whole; of any other, only these bytes are read.
        """
        if extent.form == Form.HOLE:
            return bytes(stop - start)
        if extent.form == Form.VERBATIM:
            return self.file.data(extent.position + start, stop - start, nid=inode.nid)
        if extent.form == Form.FRAGMENT:
            return self._fragment(inode, extent, start, stop)
        return self.extent_data(inode, extent)[start:stop]

    def chunks(self, inode: Inode) -> Iterator[bytes]:
        """Yield the data of `inode` in pieces of at most 12 MiB."""
        for extent in self.extents(inode):
            if extent.form in (Form.ENCODED, Form.INTERLACED):
                yield self.extent_data(inode, extent)
                continue
            for start in range(0, extent.length, _PIECE):
                yield self.part(inode, extent, start, min(start + _PIECE, extent.length))

    def extract(self, inode: Inode, fd: int) -> None:
        """Write the data of a regular file into the open, empty file `fd`.  Blocks of zeros become holes."""
        os.ftruncate(fd, inode.size)
        position = 0
        zeros = bytes(_PIECE)
        for piece in self.chunks(inode):
            if not zeros.startswith(piece):  # the whole piece at once is ten times as fast as block by block
                for start in range(0, len(piece), layout.BLOCK_SIZE):
                    block = piece[start : start + layout.BLOCK_SIZE]
                    if not zeros.startswith(block):
                        _pwrite(fd, block, position + start)
            position += len(piece)

    def readlink(self, inode: Inode) -> bytes:
        """Return where a symlink points."""
        if not stat.S_ISLNK(inode.mode):
            raise ErofsError(f"a {inode.kind}, not a symlink", rule="not-a-symlink", nid=inode.nid)
        if not 0 < inode.size <= MAX_PATH:
            raise ErofsError(f"symlink of {inode.size} bytes", rule="symlink-target", nid=inode.nid)
        target = self.read(inode, 0, inode.size)
        if b"\0" in target:
            raise ErofsError("symlink with a zero byte in it", rule="symlink-target", nid=inode.nid)
        return target

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """Return full names (``security.capability``) and values of the xattrs of `inode`."""
        return read_xattrs(self.file, self.description, inode, self._prefixes)

    def xattr_places(self, inode: Inode) -> list[tuple[bytes, int, int]]:
        """Return the xattrs of `inode`: the full name, and the bytes of the image where the value begins and ends."""
        return locate_xattrs(self.file, self.description, inode, self._prefixes)

    def _blocks(self, directory: Inode) -> Iterator[bytes]:
        """Yield the data of a directory in blocks."""
        rest = b""
        for piece in self.chunks(directory):
            data = rest + piece if rest else piece
            whole = len(data) - len(data) % layout.BLOCK_SIZE
            for start in range(0, whole, layout.BLOCK_SIZE):
                yield data[start : start + layout.BLOCK_SIZE]
            rest = data[whole:]
        if rest:
            yield rest

    @cached_property
    def _packed(self) -> Inode:
        """The inode that holds fragments."""
        return self.inode(self.description.superblock.packed_nid)

    def check_fragment(self, inode: Inode, extent: Extent) -> None:
        """Raise `ErofsError` unless a fragment of `inode` is inside the packed inode."""
        if inode.nid == self._packed.nid:
            raise ErofsError(
                "the packed inode has a part that is in the packed inode", rule="fragment-loop", nid=inode.nid
            )
        if extent.position + extent.length > self._packed.size:
            raise ErofsError(
                f"fragment of {extent.length} bytes at {extent.position} is outside the packed inode",
                rule="data-outside",
                nid=inode.nid,
            )

    def _fragment(self, inode: Inode, extent: Extent, start: int, stop: int) -> bytes:
        self.check_fragment(inode, extent)
        return self.read(self._packed, extent.position + start, stop - start)

    @cached_property
    def _prefixes(self) -> Prefixes:
        plain = self.description.superblock.feature_compat & layout.COMPAT_PLAIN_XATTR_PFX
        if plain or not self.description.superblock.packed_nid:
            return read_prefixes(self.description, lambda length, offset: self.file.map[offset : offset + length])
        return read_prefixes(self.description, lambda length, offset: self.read(self._packed, offset, length))


def _pwrite(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
