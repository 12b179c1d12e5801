"""Sets of layers whose members are hard to read, or to write into an image."""

from __future__ import annotations

import gzip
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import zstandard

from shed.oci import media
from support.erofs.trees import noise, text
from support.layers.layer_set import LOWER, ROOT, LayerSet, at, layer_set, with_xattrs
from support.layers.tars import Item, device, file, folder, hardlink, symlink, tar

CLUSTER = 64 << 10
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACL = bytes.fromhex("0200000001000600ffffffff04000400ffffffff10000600ffffffff20000400ffffffff")


def capabilities() -> LayerSet:
    """A program with a capability; one that is replaced by one without; one that a hardlink shares."""
    cap = {"security.capability": CAPABILITY}
    below = (
        with_xattrs(file("ping", b"\x7fELF", mode=0o755), cap),
        with_xattrs(file("old", b"o", mode=0o755), cap),
        hardlink("ping6", "ping"),
    )
    return layer_set(below, (file("old", b"n", mode=0o755),))


def many_xattrs() -> LayerSet:
    """Of every name space, empty and binary values, on files, folders and symlinks."""
    some = {"user.name": b"value", "user.binary": bytes(range(256)), "user.record": b"a=b\n7 c=d\n", "trusted.t": b"t"}
    acls = {"system.posix_acl_access": ACL, "system.posix_acl_default": ACL}
    items = [with_xattrs(folder("dir", mode=0o664), {**some, **acls}), with_xattrs(file("some", b"x"), some)]
    items += [
        with_xattrs(file(f"many/{n}", b"x" * n), {f"user.{i:03}": b"%d" % i for i in range(n)})
        for n in (1, 2, 3, 30, 100)
    ]
    items += [
        with_xattrs(symlink("link", "dir"), {"trusted.link": b"1"}),
        with_xattrs(file("empty", b"x"), {"user.empty": b""}),
    ]
    items.append(with_xattrs(folder("overlay"), {"trusted.overlay.opaque": b"y"}))
    umoci = {
        ("empty", "xattrs"): "Go's tar reader takes a record without a value for one that is taken back",
    }
    return layer_set((folder("many"), *items), umoci=umoci)


def large_xattrs() -> LayerSet:
    """Values up to the most that Linux allows, and more names than fit into a block."""
    items = [
        with_xattrs(file(f"value-{size}", b"x"), {"user.v": noise(size)}) for size in (3000, 4000, 4096, 9000, 65535)
    ]
    items.append(with_xattrs(file("thousand", b"x"), {f"user.{n:04}": b"%d" % n for n in range(1000)}))
    return layer_set(tuple(items), refuses="ext4 and most other file systems hold at most one block of xattrs")


def _sparse(*ways: list[str]) -> list[bytes]:
    """Return a layer for each way that GNU tar has: sparse files with data first, last, in the middle, in many places,
    nowhere.
    """
    offsets = {
        "first": [0],
        "last": [(1 << 20) - 5],
        "middle": [300_000],
        "none": [],
        "many": list(range(0, 1 << 20, 70_000)),
    }
    layers = []
    for number, way in enumerate(ways):
        with tempfile.TemporaryDirectory() as folder_name:
            names = [f"{name}-{number}" for name in offsets]
            for name, places in zip(names, offsets.values(), strict=True):
                with (Path(folder_name) / name).open("wb") as out:
                    for place in places:
                        out.seek(place)
                        out.write(b"data!")
                    out.truncate(1 << 20)
            command = [
                "tar",
                "-C",
                folder_name,
                "--sparse",
                *way,
                "--owner=0",
                "--group=0",
                "--mtime=@70",
                "-cf",
                "-",
                *names,
            ]
            layers.append(subprocess.run(command, check=True, capture_output=True).stdout)
    return layers


def sparse_gnu() -> LayerSet:
    """Sparse members as old GNU tar writes them."""
    return layer_set((), *_sparse(["--format=gnu"]), refuses="umoci does not know the type of GNU's sparse members")


def sparse_pax() -> LayerSet:
    """Sparse members of PAX, in all three versions."""
    return layer_set(
        (), *_sparse(*(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")))
    )


def long_names() -> LayerSet:
    """Names and targets beyond 100, 155 and 255 bytes, as PAX and as GNU tar write them."""

    def items(mark: str) -> tuple[Item, ...]:
        deep = "/".join([mark * 200] * 6)
        parents = ["/".join([mark * 200] * count) for count in range(1, 7)]
        sizes = [file(f"{mark}{'n' * size}", b"n", mtime=80) for size in (98, 99, 100, 101, 154, 155, 156, 254)]
        links = [symlink(f"{mark}-to-{size}", "t" * size, mtime=81) for size in (99, 100, 101, 1000, 4000)]
        return (
            *(folder(parent, mtime=82) for parent in parents),
            file(f"{deep}/{mark * 255}", b"d", mtime=83),
            hardlink(f"{mark}-link", f"{deep}/{mark * 255}"),
            *sizes,
            *links,
        )

    return layer_set(items("p"), tar(*items("g"), format=tarfile.GNU_FORMAT))


def names_that_are_no_text() -> LayerSet:
    """Latin-1, broken UTF-8, line feeds, spaces, leading dashes and dots."""
    odd = [
        b"\xe4\xf6\xfc",
        b"\xff\xfe",
        b"\xc3\x28",
        b"new\nline",
        b" space ",
        b"-rf",
        b"...",
        b"..a",
        b".a",
        b"\x01\x7f",
        "ä€𝄞".encode(),
        b"a\\b",
        b"%s",
        b"*",
    ]
    items = [folder("odd")]
    for name in odd:
        text_name = name.decode("utf-8", "surrogateescape")
        items += [
            file(f"odd/{text_name}", name),
            symlink(f"odd/link{text_name}", text_name),
            hardlink(f"odd/hard{text_name}", f"odd/{text_name}"),
        ]
    return layer_set(tar(ROOT, *items, format=tarfile.GNU_FORMAT))


def zstd_layers() -> LayerSet:
    """Compressed with zstd, in more than one frame."""

    def pack(layer: bytes) -> tuple[bytes, str]:
        half = len(layer) // 2
        return zstandard.compress(layer[:half]) + zstandard.compress(layer[half:]), media.LAYER_ZSTD

    return LayerSet((tar(ROOT, *LOWER), tar(file("etc/.wh.one"), file("big", text(300_000)))), pack=pack)


def gzip_members() -> LayerSet:
    """Several gzip members one after another, cut anywhere."""

    def pack(layer: bytes) -> tuple[bytes, str]:
        return b"".join(
            gzip.compress(layer[start : start + 70_001], mtime=0) for start in range(0, len(layer), 70_001)
        ), media.LAYER_GZIP

    return LayerSet((tar(ROOT, *LOWER), tar(file("etc/.wh.one"), file("big", noise(300_000)))), pack=pack)


def plain_layers() -> LayerSet:
    """Not compressed."""
    return LayerSet((tar(ROOT, *LOWER), tar(file("etc/.wh.one"))), pack=lambda layer: (layer, media.LAYER))


def empty_things() -> LayerSet:
    """Empty files and folders, a layer with nothing in it, and one with a folder alone."""
    return layer_set((file("file"), folder("folder"), folder("a"), folder("a/b"), file("a/b/c")), (), (folder("last"),))


def devices() -> LayerSet:
    """Character and block devices with small and large numbers, fifos, and whiteouts of overlayfs, which are nothing
    but devices here.
    """
    numbers = [(0, 0), (1, 3), (8, 1), (255, 255), (256, 256), (4095, 1_048_575)]
    items = [
        device(f"{kind.decode()}-{major}-{minor}", kind, major, minor)
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE)
        for major, minor in numbers
    ]
    return layer_set((*items, device("fifo", tarfile.FIFOTYPE)))


def modes_and_owners() -> LayerSet:
    """Setuid, setgid, sticky, nothing at all; owners up to the largest; a folder whose mode a higher layer changes."""
    modes = [0, 0o7777, 0o4755, 0o2755, 0o1777, 0o644]
    items = [
        make(f"{kind}-{mode:o}", mode=mode, mtime=1)
        for mode in modes
        for kind, make in (("file", file), ("folder", folder))
    ]
    owners = [0, 1000, 65535, 65536, 2_097_151, 2_097_152, 4_294_967_294]
    items += [file(f"owner-{owner}", b"o", uid=owner, gid=4_294_967_294 - owner, mode=0o4711) for owner in owners]
    return layer_set(
        (*items, folder("d", mode=0o700, uid=1), file("d/in", b"i")), (folder("d", mode=0o1755, uid=7, gid=8, mtime=3),)
    )


def times() -> LayerSet:
    """Before 1970, with nanoseconds, far in the future, on every type."""
    moments = [
        "0",
        "-1",
        "-0.5",
        "-1.000000001",
        "-5.999999999",
        "-2000000000.25",
        "0.000000001",
        "1600000000.123456789",
        "4294967296.5",
        "8589934591",
        "8589934592.000000007",
    ]
    items = [at(file(f"file{moment}", b"t"), moment) for moment in moments]
    items += [at(symlink(f"link{moment}", "t"), moment) for moment in moments]
    items += [at(folder(f"folder{moment}"), moment) for moment in moments]
    return layer_set(tuple(items))


def clusters() -> LayerSet:
    """Sizes one byte below, at and above blocks and clusters, of bytes that compress well, somewhat, and not at all."""
    kinds: dict[str, Callable[[int, int], bytes]] = {"text": text, "noise": noise, "zero": lambda size, _: bytes(size)}
    sizes = [edge + shift for edge in (4096, CLUSTER, 2 * CLUSTER, 1 << 20) for shift in (-1, 0, 1)]
    items = [file(f"{kind}-{size}", make(size, size)) for kind, make in kinds.items() for size in sizes]
    return layer_set((*items, file("segments", text(1 << 20) * 17)))  # mkfs.erofs cuts files into segments of 16 MiB


def wide_and_deep() -> LayerSet:
    """A folder with many files, and folders in folders."""
    deep = ["/".join(["d"] * count) for count in range(1, 60)]
    return layer_set(
        (
            folder("wide"),
            *(file(f"wide/{n:04}", b"%d" % n, mtime=n) for n in range(1500)),
            *(folder(path) for path in deep),
        ),
        (file("wide/.wh.0007"),),
    )
