"""Checking that the structure of an image is sound, before anything boots from it.

A mount proves little: a kernel mounts an image whose inodes use features that its superblock does not declare, and then
fails to read files (erofs-utils 1.7.1 made such images; fsck.erofs passes them).  So `check` walks every inode, all its
xattrs, its map header and all its indexes.  With `data` it also decodes every extent.

The checker knows nothing of what should be in the image; comparing it with its source is the verifier's part.

The first broken rule ends the check with an `ErofsError`, whose `rule` is one of:

=================== ====================================================================================================
the image           magic, checksum, block-size, directory-block-size, superblock-size, truncated, compression-settings,
                    unknown-feature, unsupported-feature, xattr-prefixes
its features        big-pcluster-undeclared, ztailpacking-undeclared, fragments-undeclared, chunked-file-undeclared,
                    compr-head2-undeclared, xattr-prefixes-undeclared, algorithm-undeclared, unknown-algorithm
places              inode-outside, data-outside, index-outside, xattr-outside, inline-crosses-block, metadata-overlap
inodes              inode-format, inode-size, file-type, nlink, symlink-target, xattr-index, xattr-name,
                    xattr-duplicate, inode-count
directories         dirent-offset, dirent-order, dirent-name, dirent-type, dirent-dots, directory-loop
compressed data     map-header, chunk-format, index-head, index-offset, index-distance, index-size, pcluster-size,
                    pcluster-undeclared, fragment-loop, compressed-data
=================== ====================================================================================================
"""

from __future__ import annotations

import contextlib
import mmap
import stat
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from shed.erofs import layout
from shed.erofs.clusters import ClusterMap, read_map
from shed.erofs.errors import ErofsError, shown
from shed.erofs.extents import Form, chunk_table, extents
from shed.erofs.inode import Inode
from shed.erofs.reader import Image
from shed.erofs.superblock import Superblock

MAX_INODES = 4_000_000
"""Most inodes of an image: twice the number of files that an image may have.  Checking so many takes at most 0.5 GB of
memory.
"""
_DIRECTORY_RATIO = 64
"""Directories that decode to more than this many times the size of the image are an attack on our time."""
_MAX_PARTS = 64
"""Most components of a path that a message shows."""


@dataclass(slots=True)
class Report:
    """What a valid image holds."""

    size: int
    """Bytes of the image."""
    features: tuple[str, ...]
    algorithms: tuple[str, ...]
    """Compression algorithms the superblock allows inodes to use."""
    inodes: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    """How many inodes of each kind (``file``, ``directory``, ``symlink`` ...)."""
    layouts: dict[str, int] = field(default_factory=dict)
    """How many inodes with data of each layout."""
    names: int = 0
    """Directory entries, less `.` and `..`."""
    xattrs: int = 0
    logical: int = 0
    """Bytes of all regular files."""
    extents: int = 0
    encoded: int = 0
    """Extents that are compressed."""


def check(path: Path, *, data: bool = False) -> Report:
    """Check the image `path`, and with `data` decode all of its contents.

    Raises `ErofsError` for the first rule that is broken, naming the inode and its path, and `NotFoundError` when there
    is no such file.
    """
    with Image.open(path) as image:
        return check_image(image, data=data)


def check_image(image: Image, *, data: bool = False) -> Report:
    """Do as `check` does, with an image that is open already."""
    walk = _Walk(image, data=data)
    try:
        return walk.run()
    except ErofsError as error:
        raise walk.located(error) from None


class _Walk:
    """One pass over all inodes, breadth first."""

    def __init__(self, image: Image, *, data: bool) -> None:
        self.image = image
        self.data = data
        superblock = image.description.superblock
        self.report = Report(image.file.size, _features(superblock), _algorithms(image))
        self.met = mmap.mmap(-1, image.file.size // layout.NID_SIZE // 8 + 1)
        """A bit for each nid that there can be.  Pages that nobody writes to take no memory."""
        self.links: dict[int, int] = {}
        """Names that are still to be met, of inodes that say they have several: a few of an honest image."""
        self.queue = array("Q")
        """Directories to look into, with their parents: nid, nid, ...  Objects would take 20 times as much, of which an
        image decides.
        """
        self.metadata = self.directories = 0

    def run(self) -> Report:
        image = self.image
        superblock = image.description.superblock
        root = self.meet(superblock.root_nid)
        if not stat.S_ISDIR(root.mode):
            raise ErofsError(f"the root is a {root.kind}", rule="file-type", nid=root.nid)
        self.queue.extend((root.nid, root.nid))
        done = 0
        while done < len(self.queue):
            nid, parent = self.queue[done : done + 2]
            done += 2
            self.directory(root if nid == root.nid else image.inode(nid), parent)
        for nid, missing in self.links.items():
            if missing:
                inode = image.inode(nid)
                raise ErofsError(f"says {inode.nlink} links, has {inode.nlink - missing}", rule="nlink", nid=nid)
        if superblock.packed_nid and image.description.declares(layout.INCOMPAT_FRAGMENTS):
            logical = self.report.logical
            self.content(image.inode(superblock.packed_nid))
            self.report.logical = logical  # what it holds are parts of files that are counted already
        return self.report

    def located(self, error: ErofsError) -> ErofsError:
        """Return `error` with the path of its inode in the message."""
        if error.nid is None:
            return error
        path = self.path(error.nid)
        where = f" ({shown(path)})" if path else ""
        return ErofsError(f"inode {error.nid}{where}: {error.message}", rule=error.rule, nid=error.nid, hint=error.hint)

    def path(self, nid: int) -> bytes:
        """Return the first path that leads to the inode; empty when there is none.

        Paths are not kept, so it is searched for.  Of a long path, only the last components are returned.
        """
        parts: list[bytes] = []
        with contextlib.suppress(ErofsError):
            while nid != self.image.description.superblock.root_nid and len(parts) < _MAX_PARTS:
                parent = self.parent(nid)
                name = self.name(parent, nid) if parent is not None else None
                for directory in self.queue[::2] if parent is None else ():  # what is no directory may be in any
                    if (name := self.name(directory, nid)) is not None:
                        parent = directory
                        break
                if parent is None or name is None:
                    break
                parts.append(name)
                nid = parent
        return b"/".join(reversed(parts))

    def parent(self, nid: int) -> int | None:
        """Return the parent of the directory `nid`; None when `nid` is no directory."""
        at = -1
        with contextlib.suppress(ValueError):
            while (at := self.queue.index(nid, at + 1)) % 2:
                pass
            return self.queue[at + 1]
        return None

    def name(self, directory: int, nid: int) -> bytes | None:
        """Return the first name of `nid` in a directory.  Raises `ErofsError` when the directory is malformed."""
        entries = self.image.entries(self.image.inode(directory))
        return next((name for name, target, _ in entries if target == nid and name not in (b".", b"..")), None)

    def directory(self, directory: Inode, parent: int) -> None:
        """Check the entries of a directory, and the inodes that they lead to."""
        self.directories += directory.size
        limit = self.image.file.size * (_DIRECTORY_RATIO if directory.compressed else 1)
        if self.directories > limit:
            raise ErofsError("directories hold more than the image can", rule="metadata-overlap", nid=directory.nid)
        nid, met = directory.nid, self.met
        dots = {b".": nid, b"..": parent}
        subdirectories = 0
        for name, target, file_type in self.image.entries(directory):
            if name in dots:
                if dots.pop(name) != target or file_type != layout.FT_DIR:
                    raise ErofsError(f"entry {name.decode()!r} is inode {target}", rule="dirent-dots", nid=nid)
                continue
            self.report.names += 1
            if target >> 3 >= len(met) or not met[target >> 3] & 1 << (target & 7):
                inode = self.meet(target)
                if stat.S_ISDIR(inode.mode):
                    subdirectories += 1
                    self.queue.extend((target, nid))
                elif inode.nlink != 1:
                    self.links[target] = inode.nlink - 1
            else:
                inode = self.image.inode(target)
                if stat.S_ISDIR(inode.mode):
                    raise ErofsError(f"directory {name!r} is in the tree already", rule="directory-loop", nid=target)
                self.links[target] = self.links.get(target, 0) - 1
            if layout.FILE_TYPES[inode.mode & 0o170000] != file_type:
                raise ErofsError(
                    f"entry {name!r} has type {file_type}, but is a {inode.kind}", rule="dirent-type", nid=nid
                )
        if dots:
            raise ErofsError(f"directory without {b' and '.join(dots).decode()!r}", rule="dirent-dots", nid=nid)
        if directory.nlink not in (1, subdirectories + 2):
            raise ErofsError(f"says {directory.nlink} links, has {subdirectories + 2}", rule="nlink", nid=nid)

    def meet(self, nid: int) -> Inode:
        """Load and check an inode that was not visited before."""
        image, report = self.image, self.report
        inode = image.inode(nid)
        self.met[nid >> 3] |= 1 << (nid & 7)
        report.inodes += 1
        if report.inodes > MAX_INODES:
            raise ErofsError(f"more than {MAX_INODES:,} inodes", rule="inode-count")
        kind = inode.kind
        report.kinds[kind] = report.kinds.get(kind, 0) + 1
        self.metadata += inode.body - inode.offset + inode.tail
        if inode.xattr_icount:
            report.xattrs += len(image.xattr_places(inode))
        if kind in ("file", "directory", "symlink"):
            if inode.size:
                report.layouts[layout.LAYOUT_NAMES[inode.layout]] = (
                    report.layouts.get(layout.LAYOUT_NAMES[inode.layout], 0) + 1
                )
                self.content(inode)
            if kind == "symlink":
                image.readlink(inode)
        if self.metadata > image.file.size:
            raise ErofsError("inodes overlap", rule="metadata-overlap", nid=nid)
        return inode

    def content(self, inode: Inode) -> None:
        """Check where the data of an inode is, and with `data` decode it."""
        image, report = self.image, self.report
        file, description = image.file, image.description
        table: ClusterMap | None = None
        if stat.S_ISREG(inode.mode):
            report.logical += inode.size
        if inode.layout == layout.LAYOUT_CHUNK_BASED:
            _, unit, bits = chunk_table(file, description, inode)
            self.metadata += unit * -(-inode.size >> bits)
        elif inode.compressed:
            table = read_map(file, description, inode)
            self.metadata += table.end - inode.body + table.inline_size
        elif not self.data:
            report.extents += 1
            return  # `load_inode` has checked it
        if self.metadata > file.size:
            raise ErofsError("inodes overlap", rule="metadata-overlap", nid=inode.nid)
        for extent in extents(file, description, inode, table=table):
            report.extents += 1
            report.encoded += extent.form == Form.ENCODED
            if extent.form == Form.FRAGMENT:
                image.check_fragment(inode, extent)
            elif self.data and extent.form == Form.ENCODED:
                image.extent_data(inode, extent)


def _features(superblock: Superblock) -> tuple[str, ...]:
    compat = [name for bit, name in layout.COMPAT_NAMES.items() if superblock.feature_compat & bit]
    return (*compat, *(name for bit, name in layout.INCOMPAT_NAMES.items() if superblock.feature_incompat & bit))


def _algorithms(image: Image) -> tuple[str, ...]:
    return tuple(layout.ALGORITHM_NAMES[number] for number in sorted(image.description.algorithms))
