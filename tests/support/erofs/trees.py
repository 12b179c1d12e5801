"""Generated file trees at the boundaries of the EROFS format, as the entry streams a writer is given.

`TREES` names them all: a function of the cluster size for each.  The same call always gives the same tree, and contents
are made when they are read, so that a file may be larger than memory.
"""

from __future__ import annotations

import itertools
import os
import random
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from shed.entries import Entry

BLOCK = 4096
EPOCH = 1_600_000_000
"""The time of files that are given no other."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """Content that is in memory."""

    data: bytes

    def pread(self, length: int, offset: int) -> bytes:
        return self.data[offset : offset + length]


@dataclass(frozen=True, slots=True)
class Sparse:
    """Content of `size` zeros, with pieces of data at some offsets."""

    size: int
    pieces: tuple[tuple[int, bytes], ...] = ()

    def pread(self, length: int, offset: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        near = [(at, data) for at, data in self.pieces if at < offset + length and offset < at + len(data)]
        if not near:
            return bytes(length)
        result = bytearray(length)
        for at, data in near:
            start = max(at, offset)
            stop = min(at + len(data), offset + length)
            result[start - offset : stop - offset] = data[start - at : stop - at]
        return bytes(result)


class Trickle:
    """Content that gives fewer bytes than it is asked for, as a pipe or a network file system may."""

    def __init__(self, data: bytes, *, step: int = 1000) -> None:
        self._data = data
        self._step = step

    def pread(self, length: int, offset: int) -> bytes:
        return self._data[offset : offset + min(length, self._step)]


def file(
    path: str | bytes, data: bytes = b"", *, mode: int = 0o644, xattrs: Mapping[bytes, bytes] | None = None
) -> Entry:
    """A regular file that holds `data`."""
    return Entry(
        _raw(path),
        stat.S_IFREG | mode,
        mtime=EPOCH,
        size=len(data),
        content=Bytes(data) if data else None,
        xattrs=xattrs or {},
    )


def sparse(path: str | bytes, size: int, *pieces: tuple[int, bytes]) -> Entry:
    """A regular file of zeros, with `pieces` at their offsets."""
    return Entry(_raw(path), stat.S_IFREG | 0o644, mtime=EPOCH, size=size, content=Sparse(size, pieces))


def folder(path: str | bytes, *, mode: int = 0o755, xattrs: Mapping[bytes, bytes] | None = None) -> Entry:
    """A folder."""
    return Entry(_raw(path), stat.S_IFDIR | mode, mtime=EPOCH, xattrs=xattrs or {})


def symlink(path: str | bytes, target: str | bytes, *, xattrs: Mapping[bytes, bytes] | None = None) -> Entry:
    """A symlink."""
    return Entry(_raw(path), stat.S_IFLNK | 0o777, mtime=EPOCH, target=_raw(target), xattrs=xattrs or {})


def hardlink(path: str | bytes, target: str | bytes) -> Entry:
    """Another name of the file `target`."""
    return Entry(_raw(path), stat.S_IFREG | 0o644, link=_raw(target))


def special(path: str | bytes, kind: int, *, major: int = 0, minor: int = 0) -> Entry:
    """A device, fifo or socket: `kind` is one of `stat.S_IF*`."""
    return Entry(_raw(path), kind | 0o640, mtime=EPOCH, rdev=os.makedev(major, minor))


def tree(entries: Iterable[Entry]) -> list[Entry]:
    """Return `entries` sorted, with the root and every folder on the way that is not among them."""
    by_path = {entry.path: entry for entry in entries}
    for path in list(by_path):
        parent = path
        while parent:
            parent = parent.rpartition(b"/")[0]
            by_path.setdefault(parent, folder(parent))
    return sorted(by_path.values(), key=lambda entry: (entry.path != b"", entry.path.split(b"/")))


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    return random.Random(f"noise {seed}").randbytes(size)


def text(size: int, seed: int = 0) -> bytes:
    """Bytes that compress to about a third."""
    chance = random.Random(f"text {seed}")
    letters = chance.randbytes(256 * 10).hex()
    words = [letters[number * 20 : number * 20 + 3 + number % 17] + " " for number in range(256)]
    parts: list[str] = []
    length = 0
    while length < size:
        parts += [words[choice] for choice in chance.randbytes(1024)]
        length += 1024 * 4
    return "".join(parts).encode()[:size]


def sizes(cluster: int) -> list[Entry]:
    """Files one byte below, at and above every boundary, of bytes that compress well, somewhat, and not at all."""
    around = [
        1,
        31,
        32,
        33,
        1000,
        2048,
        3000,
        3500,
        4000,
        4032,
        4064,
        BLOCK,
        2 * BLOCK,
        3 * BLOCK,
        cluster // 2,
        cluster,
        cluster + BLOCK,
    ]
    around += [cluster + cluster // 2, 2 * cluster, 3 * cluster, 1 << 20, (1 << 20) + cluster]
    wanted = sorted({size + shift for size in around for shift in (-1, 0, 1)})
    entries = []
    for size in wanted:
        entries.append(file(f"even/{size}", b"\x01" * size))
        entries.append(file(f"text/{size}", text(size, size)))
        entries.append(file(f"noise/{size}", noise(size, size)))
        entries.append(file(f"half/{size}", noise(size // 2, size + 1) + bytes(size - size // 2)))
    return tree(entries)


def mixed(cluster: int) -> list[Entry]:
    """Files whose clusters take turns: compressible, incompressible and zero, in all orders, with all kinds of ends."""
    kinds: dict[str, Callable[[int, int], bytes]] = {"t": text, "n": noise, "z": lambda size, _: bytes(size)}
    entries = []
    for letters in itertools.product(kinds, repeat=3):
        start = b"".join(kinds[letter](cluster, number) for number, letter in enumerate(letters))
        ends = (0, 1, 100, BLOCK, BLOCK + 100, cluster // 2 + 5)
        entries += [file(f"{''.join(letters)}/{size}", start + kinds[letters[-1]](size, 9)) for size in ends]
    # With so many indexes and so long a tail, the inode begins in the last 32 bytes of a block for the tail to be
    # within one.
    entries.append(file("crossing", text(2 * cluster) + noise(max(506 * BLOCK - 2 * cluster, cluster)) + noise(4060)))
    return tree(entries)


def xattrs(_cluster: int) -> list[Entry]:
    """Xattrs of every kind, none to very many, small and large, on every type of file."""
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    acl = bytes.fromhex("0200000001000600ffffffff04000400ffffffff10000600ffffffff20000400ffffffff")
    some: dict[bytes, bytes] = {
        b"security.capability": capability,
        b"system.posix_acl_access": acl,
        b"trusted.overlay.opaque": b"y",
        b"user.empty": b"",
        b"user.name": b"value",
    }
    entries = [
        folder("", xattrs={b"user.root": b"1"}),
        folder("dir", xattrs={**some, b"system.posix_acl_default": acl}),
    ]
    entries += [file(f"one/{name.decode()}", b"x", xattrs={name: value}) for name, value in some.items()]
    entries.append(file("longest-name", b"x", xattrs={b"user." + b"n" * 250: b"v"}))
    entries += [
        file(f"value/{size}", b"tail", xattrs={b"user.v": noise(size)})
        for size in (1, 2, 3, 4, 3000, 3900, 4000, 4096, 9000, 65535)
    ]
    entries += [
        file(f"many/{count}", noise(count), xattrs={b"user.%d" % n: b"%d" % n for n in range(count)})
        for count in (10, 150, 400, 3000)
    ]
    entries.append(symlink("link", "target", xattrs={b"trusted.l": b"1"}))
    entries.append(symlink("link-full", "t" * 3000, xattrs={b"trusted.l": noise(2000)}))
    entries.append(file("big", text(300_000), xattrs=some))
    entries.append(file("hole", bytes(100_000), xattrs=some))
    entries.append(file("empty", xattrs=some))
    fifo = special("fifo", stat.S_IFIFO)
    fifo.xattrs = {b"trusted.f": b"1"}
    entries.append(fifo)
    return tree(entries)


def names(_cluster: int) -> list[Entry]:
    """Names that sort before "." and "..", that are not text, and that are as long as can be, in folders of every
    fill.
    """
    odd = [
        b"!",
        b"-",
        b"...",
        b".a",
        b"..a",
        b"\xff\xfe",
        b"a b",
        b"new\nline",
        b"\x01",
        b"\xc3\xa4",
        b"~",
        b"%s",
        b"\\",
    ]
    entries = [file(b"odd/" + name, name) for name in odd]
    entries += [
        file(b"long/" + bytes([97 + n % 26]) * length, b"x") for n, length in enumerate((1, 127, 128, 254, 255))
    ]
    for count in (1, 14, 15, 16, 17, 30, 31):
        entries += [file(f"full/{count}/{n:0255d}") for n in range(count)]
    # Folders whose entries end just below, at and just above the space of an inline tail and of a block.
    for size in [*range(3996, 4098), 8191, 8192, 8193]:
        rest = size - 12 * 2 - 3  # "." and ".."
        lengths = []
        while rest > 267:
            lengths.append(min(255, rest - 12 - 13))
            rest -= 12 + lengths[-1]
        lengths.append(rest - 12)
        entries += [file(f"fill/{size}/" + chr(97 + n) * length) for n, length in enumerate(lengths)]
    return tree(entries)


def wide(_cluster: int) -> list[Entry]:
    """One folder with 10,000 entries."""
    return tree([file(f"wide/entry-{n:05d}", b"%d" % n) for n in range(10_000)])


def deep(_cluster: int) -> list[Entry]:
    """Folders in folders: deeper than that, fsck.erofs 1.9 runs out of stack."""
    return tree([file("/".join(["d"] * 500) + "/end", b"deep"), file("/".join(["x" * 200] * 18) + "/end", b"long")])


def links(_cluster: int) -> list[Entry]:
    """Hardlinks before and after the name they point to, to files, symlinks and devices; symlinks of every length."""
    entries = [
        file("b/file", text(50_000)),
        hardlink("a/before", "b/file"),
        hardlink("b/after", "b/file"),
        hardlink("c", "b/file"),
        file("one"),
        hardlink("two", "one"),
        symlink("sym", "b/file"),
        hardlink("sym-again", "sym"),
        special("null", stat.S_IFCHR, major=1, minor=3),
        hardlink("null-again", "null"),
    ]
    entries += [
        symlink(f"symlinks/{size}", "s" * size) for size in (1, 60, 255, 3000, 4000, 4031, 4032, 4033, 4064, 4094, 4095)
    ]
    return tree(entries)


def devices(_cluster: int) -> list[Entry]:
    """Devices with small and large numbers, fifos and sockets."""
    numbers = [(0, 0), (1, 3), (8, 1), (255, 255), (256, 256), (4095, 1_048_575)]
    entries = [special(f"char/{major}-{minor}", stat.S_IFCHR, major=major, minor=minor) for major, minor in numbers]
    entries += [special(f"block/{major}-{minor}", stat.S_IFBLK, major=major, minor=minor) for major, minor in numbers]
    entries += [special("fifo", stat.S_IFIFO), special("socket", stat.S_IFSOCK)]
    return tree(entries)


def metadata(_cluster: int) -> list[Entry]:
    """Modes, owners and times at their limits."""
    entries = []
    for mode in (0, 0o7777, 0o4755, 0o2755, 0o1777, 0o644):
        entries += [file(f"mode/{mode:o}", b"m", mode=mode), folder(f"dir/{mode:o}", mode=mode)]
    for owner in (0, 1000, 65535, 65536, 0xFFFFFFFE):
        entry = file(f"owner/{owner}", b"o")
        entry.uid, entry.gid = owner, 0xFFFFFFFE - owner
        entries.append(entry)
    for seconds, nanoseconds in [
        (0, 0),
        (-1, 999_999_999),
        (-(1 << 31), 0),
        (1 << 31, 1),
        (1 << 32, 0),
        (EPOCH, 123_456_789),
        (1 << 33, 5),
    ]:
        entry = file(f"time/{seconds}", b"t")
        entry.mtime, entry.mtime_ns = seconds, nanoseconds
        entries.append(entry)
    return tree(entries)


def holes(cluster: int) -> list[Entry]:
    """Zeros: files that are nothing else, and files with data before, behind and between."""
    entries = [
        sparse(f"zero/{size}", size)
        for size in (1, 4095, 4096, 4097, 8192, cluster - 1, cluster, cluster + 1, 10 * cluster + 77)
    ]
    far = 40 * cluster
    entries += [
        sparse("start", far, (0, text(5000))),
        sparse("end", far + 5, (far, b"last!")),
        sparse("middle", far, (13 * cluster + 100, noise(cluster))),
        sparse("stripes", far, *((n * 2 * cluster, text(cluster, n)) for n in range(20))),
        sparse("noise-stripes", far, *((n * 2 * cluster, noise(cluster, n)) for n in range(20))),
        sparse("noise-then-hole", far, (0, noise(3 * cluster))),
        sparse("unaligned", far + 1234, (cluster + 1, b"x"), (5 * cluster - 1, b"yz"), (far + 1233, b"e")),
    ]
    return tree(entries)


def twins(cluster: int) -> list[Entry]:
    """Files with equal contents, and files of equal size that differ in one byte."""
    entries = []
    for size in (10, BLOCK - 1, BLOCK, BLOCK + 1, cluster, cluster + 1, 3 * cluster + 10):
        for kind, data in (("text", text(size, size)), ("noise", noise(size, size)), ("zero", bytes(size))):
            entries += [file(f"{kind}/{size}-{copy}", data) for copy in range(3)]
            entries.append(file(f"{kind}/{size}-xattr", data, xattrs={b"user.a": noise(700)}))
            entries.append(file(f"{kind}/{size}-other", data[:-1] + bytes([data[-1] ^ 1])))
    return tree(entries)


def bare(_cluster: int) -> list[Entry]:
    """A root, and nothing in it."""
    return tree([folder("")])


def hollow(_cluster: int) -> list[Entry]:
    """Empty files and empty folders."""
    return tree([file("file"), folder("folder"), file("a/b/c"), folder("a/d")])


TREES: dict[str, Callable[[int], list[Entry]]] = {
    made.__name__: made
    for made in (bare, hollow, sizes, mixed, xattrs, names, wide, deep, links, devices, metadata, holes, twins)
}  # fmt: skip


def _raw(path: str | bytes) -> bytes:
    return path.encode() if isinstance(path, str) else path
