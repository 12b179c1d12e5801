"""Layers that are hard to merge or to write: what images in the wild hold, and what the formats allow.

`LAYER_SETS` names them all.  Each says where `umoci unpack` shows something else than our flattening, and why; everything that is not
listed there must be equal.
"""

from __future__ import annotations

import gzip
import random
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import zstandard

from shed.oci import media
from support.tars import Image, Item, device, file, folder, hardlink, symlink, tar
from support.trees import noise, text

CLUSTER = 64 << 10
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACL = bytes.fromhex("0200000001000600ffffffff04000400ffffffff10000600ffffffff20000400ffffffff")
ROOT = folder("./", mtime=1_600_000_000)
"""Every lowest layer has it: a root that is not in any layer has the time of its making in `umoci unpack`."""


@dataclass(frozen=True, slots=True)
class LayerSet:
    """Layers, bottom first, as uncompressed tars."""

    layers: tuple[bytes, ...]
    pack: Callable[[bytes], tuple[bytes, str]] | None = None
    """How each is compressed, and its media type; gzip unless given.  (Of these, Debian's umoci knows gzip alone, and is given that.)"""
    umoci: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By path and field (``exists``, ``mtime``, …): why umoci shows something else."""
    umoci_refuses: str = ""
    """Why umoci does not unpack this at all."""

    def image(self) -> Image:
        """Return the image with its own compression."""
        image = Image(*self.layers)
        if self.pack:
            image.manifest["layers"] = [image.blob(*self.pack(layer)) for layer in self.layers]
        return image


def _set(*layers: tuple[Item, ...] | bytes, umoci: Mapping[tuple[str, str], str] | None = None, refuses: str = "") -> LayerSet:
    first, *others = layers
    lowest = tar(ROOT, *first) if isinstance(first, tuple) else first
    tars = [layer if isinstance(layer, bytes) else tar(*layer) for layer in others]
    return LayerSet((lowest, *tars), umoci=umoci or {}, umoci_refuses=refuses)


def with_xattrs(item: Item, xattrs: Mapping[str, bytes]) -> Item:
    """Return `item` with xattrs, whose values may be any bytes."""
    values = {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in xattrs.items()}
    item[0].pax_headers = {**item[0].pax_headers, **values}
    return item


def at(item: Item, time: str) -> Item:
    """Return `item` with a time in seconds, as PAX writes it."""
    item[0].pax_headers = {**item[0].pax_headers, "mtime": time}
    return item


LOWER = (
    folder("etc", mtime=10),
    file("etc/one", b"1", mtime=11),
    file("etc/two", b"22", mtime=12),
    folder("etc/deep", mtime=13),
    file("etc/deep/three", b"333", mtime=14),
    folder("usr", mtime=15),
    folder("usr/lib", mtime=16),
    file("usr/lib/x", b"x" * 5000, mtime=17),
    symlink("lib", "usr/lib", mtime=18),
    symlink("abs", "/usr/lib", mtime=19),
)


def whiteouts() -> LayerSet:
    """Of a file, a folder, a symlink, of nothing, and of something in a folder that is not there."""
    gone = (file("etc/.wh.one"), file("etc/.wh.deep"), file(".wh.lib"), file("etc/.wh.nothing"), file("none/.wh.such"))
    return _set(LOWER, gone)


def whiteout_of_the_same_layer() -> LayerSet:
    """A whiteout hides what is below its layer, wherever it stands among the layer's members."""
    return _set(LOWER, (file("etc/one", b"new", mtime=20), file("etc/.wh.one"), file("etc/.wh.two"), file("etc/two", b"new", mtime=21)))


def opaque() -> LayerSet:
    """An opaque folder keeps what its own layer puts in, before and behind the mark."""
    return _set(LOWER, (folder("etc", mtime=20), file("etc/before", b"b", mtime=21), file("etc/.wh..wh..opq"), file("etc/four", mtime=22)))


def opaque_root() -> LayerSet:
    """All lower layers are hidden."""
    return _set(LOWER, (file(".wh..wh..opq"), file("only", b"o", mtime=20)))


def opaque_and_new() -> LayerSet:
    """An opaque mark in a folder that no lower layer has, and in one below a symlink."""
    return _set(LOWER, (folder("new", mtime=20), file("new/.wh..wh..opq"), file("new/a", mtime=21)), (file("lib/.wh..wh..opq"),))


def three_layers_of_whiteouts() -> LayerSet:
    """Hidden, put back, hidden again, put back as something else."""
    return _set(LOWER, (file("etc/.wh.deep"),), (folder("etc/deep", mtime=30), file("etc/deep/y", mtime=31)),
                (file("etc/.wh.deep"),), (symlink("etc/deep", "one", mtime=40),))  # fmt: skip


def type_changes() -> LayerSet:
    """Every type becomes every other."""
    makers: dict[str, Callable[[str], Item]] = {
        "file": lambda name: file(name, name.encode(), mtime=50),
        "folder": lambda name: folder(name, mtime=50),
        "link": lambda name: symlink(name, "target", mtime=50),
        "fifo": lambda name: device(name, tarfile.FIFOTYPE),
        "char": lambda name: device(name, tarfile.CHRTYPE, 1, 3),
    }
    below: list[Item] = []
    above: list[Item] = []
    for old, make_old in makers.items():
        for new, make_new in makers.items():
            name = f"{old}-{new}"
            below += [make_old(name)] + ([file(f"{name}/child", b"c", mtime=51)] if old == "folder" else [])
            above += [make_new(name)] + ([file(f"{name}/other", b"o", mtime=52)] if new == "folder" else [])
    return _set(tuple(below), tuple(above))


def hardlinks() -> LayerSet:
    """Within a layer, to lower layers, to a symlink and a device, and chains of them."""
    one = (*LOWER, hardlink("etc/again", "etc/one"), hardlink("chain", "etc/again"), device("null", tarfile.CHRTYPE, 1, 3))
    two = (hardlink("upper", "etc/two"), hardlink("null-too", "null"), hardlink("lib-too", "lib"), hardlink("more", "chain"))
    return _set(one, two)


def hardlinks_whose_target_changes() -> LayerSet:
    """A link keeps the file it was made to, whatever comes to be at the target's place."""
    return _set(
        (*LOWER, hardlink("keeps", "etc/one"), hardlink("keeps-too", "etc/two")), (file("etc/one", b"new", mtime=60), file("etc/.wh.two"))
    )


def hardlink_to_a_whited_out_target() -> LayerSet:
    """The target is hidden by the very layer that links to it."""
    return _set(LOWER, (hardlink("a", "etc/one"), file("etc/.wh.one")))


def hardlink_to_a_target_whited_out_before() -> LayerSet:
    """As above, with the whiteout in front of the link."""
    reason = "umoci applies whiteouts where they stand; the specification says before all additions, and order has no meaning there"
    return _set(LOWER, (file("etc/.wh.one"), hardlink("a", "etc/one")), refuses=reason)


def capabilities() -> LayerSet:
    """A program with a capability; one that is replaced by one without; one that a hardlink shares."""
    cap = {"security.capability": CAPABILITY}
    below = (
        with_xattrs(file("ping", b"\x7fELF", mode=0o755), cap),
        with_xattrs(file("old", b"o", mode=0o755), cap),
        hardlink("ping6", "ping"),
    )
    return _set(below, (file("old", b"n", mode=0o755),))


def many_xattrs() -> LayerSet:
    """Of every name space, empty and binary values, on files, folders and symlinks."""
    some = {"user.name": b"value", "user.binary": bytes(range(256)), "user.record": b"a=b\n7 c=d\n", "trusted.t": b"t"}
    acls = {"system.posix_acl_access": ACL, "system.posix_acl_default": ACL}
    items = [with_xattrs(folder("dir", mode=0o664), {**some, **acls}), with_xattrs(file("some", b"x"), some)]
    items += [with_xattrs(file(f"many/{n}", b"x" * n), {f"user.{i:03}": b"%d" % i for i in range(n)}) for n in (1, 2, 3, 30, 100)]
    items += [with_xattrs(symlink("link", "dir"), {"trusted.link": b"1"}), with_xattrs(file("empty", b"x"), {"user.empty": b""})]
    items.append(with_xattrs(folder("overlay"), {"trusted.overlay.opaque": b"y"}))
    umoci = {
        ("empty", "xattrs"): "Go's tar reader takes a record without a value for one that is taken back",
        ("overlay", "xattrs"): "umoci leaves out attributes that mean something to overlayfs",
    }
    return _set((folder("many"), *items), umoci=umoci)


def large_xattrs() -> LayerSet:
    """Values up to the most that Linux allows, and more names than fit into a block."""
    items = [with_xattrs(file(f"value-{size}", b"x"), {"user.v": noise(size)}) for size in (3000, 4000, 4096, 9000, 65535)]
    items.append(with_xattrs(file("thousand", b"x"), {f"user.{n:04}": b"%d" % n for n in range(1000)}))
    return _set(tuple(items), refuses="ext4 and most other file systems hold at most one block of xattrs")


def _sparse(*ways: list[str]) -> list[bytes]:
    """Return a layer for each way that GNU tar has: sparse files with data first, last, in the middle, in many places, nowhere."""
    offsets = {"first": [0], "last": [(1 << 20) - 5], "middle": [300_000], "none": [], "many": list(range(0, 1 << 20, 70_000))}
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
            command = ["tar", "-C", folder_name, "--sparse", *way, "--owner=0", "--group=0", "--mtime=@70", "-cf", "-", *names]
            layers.append(subprocess.run(command, check=True, capture_output=True).stdout)
    return layers


def sparse_gnu() -> LayerSet:
    """Sparse members as old GNU tar writes them."""
    return _set((), *_sparse(["--format=gnu"]), refuses="umoci does not know the type of GNU's sparse members")


def sparse_pax() -> LayerSet:
    """Sparse members of PAX, in all three versions."""
    return _set((), *_sparse(*(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0"))))


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

    return _set(items("p"), tar(*items("g"), format=tarfile.GNU_FORMAT))


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
    return _set(tar(ROOT, *items, format=tarfile.GNU_FORMAT))


def zstd_layers() -> LayerSet:
    """Compressed with zstd, in more than one frame."""

    def pack(layer: bytes) -> tuple[bytes, str]:
        half = len(layer) // 2
        return zstandard.compress(layer[:half]) + zstandard.compress(layer[half:]), media.LAYER_ZSTD

    return LayerSet((tar(ROOT, *LOWER), tar(file("etc/.wh.one"), file("big", text(300_000)))), pack=pack)


def gzip_members() -> LayerSet:
    """Several gzip members one after another, cut anywhere."""

    def pack(layer: bytes) -> tuple[bytes, str]:
        return b"".join(gzip.compress(layer[start : start + 70_001], mtime=0) for start in range(0, len(layer), 70_001)), media.LAYER_GZIP

    return LayerSet((tar(ROOT, *LOWER), tar(file("etc/.wh.one"), file("big", noise(300_000)))), pack=pack)


def plain_layers() -> LayerSet:
    """Not compressed."""
    return LayerSet((tar(ROOT, *LOWER), tar(file("etc/.wh.one"))), pack=lambda layer: (layer, media.LAYER))


def symlinked_parents() -> LayerSet:
    """A member below a symlink goes where the link leads, inside the root, also for whiteouts and hardlinks."""
    links = (
        *LOWER,
        symlink("up", "../../usr/lib", mtime=90),
        symlink("etc/chain", "../abs", mtime=91),
        symlink("usr/loop", "../usr", mtime=92),
    )
    above = tuple(file(f"{parent}/{n}", b"n", mtime=93) for n, parent in enumerate(("lib", "abs", "up", "etc/chain", "usr/loop/lib")))
    above += (file("lib/.wh.x"), hardlink("link", "lib/0"), folder("abs/sub", mtime=94))
    return _set(links, above)


def symlinks_to_folders_replaced() -> LayerSet:
    """A folder in a layer's own right replaces the symlink of a lower layer, and the other way round."""
    return _set(
        LOWER,
        (folder("lib", mtime=95), file("lib/own", b"o", mtime=96)),
        (symlink("etc", "usr", mtime=97),),
        (file("etc/inside", mtime=98),),
    )


def duplicates() -> LayerSet:
    """One path several times in one layer: the last counts; of folders, what they hold stays."""
    return _set((
        file("a", b"first", mtime=1), file("a", b"second!", mtime=2, mode=0o600), folder("d", mtime=3), file("d/in", b"i", mtime=4),
        folder("d", mtime=5, mode=0o700), file("b", b"b"), symlink("b", "a", mtime=6), symlink("c", "a"), file("c", b"c", mtime=7),
        hardlink("e", "a"), file("a", b"third", mtime=8), folder("f", mtime=9), file("f/gone", b"g"), file("f", b"file now", mtime=9),
    ))  # fmt: skip


def odd_spellings() -> LayerSet:
    """Leading dots and slashes, doubled slashes, trailing slashes, dots on the way."""
    return _set((folder("./a//", mtime=1), file("/a/b", b"b", mtime=2), file("./a/./c", b"c", mtime=3), file("a/x/../d", b"d", mtime=4),
                 hardlink("./e", "/a//b"), folder("g/", mtime=5), symlink("./h", "./a//b", mtime=6)))  # fmt: skip


def parents_that_no_layer_has() -> LayerSet:
    """Files in folders that are in no layer."""
    reason = "a folder that is in no layer is made at unpacking, and dated then; ours is dated to the epoch"
    items = (file("p/q/file", b"f", mtime=1), symlink("r/link", "x", mtime=2))
    return _set(items, umoci={(path, "mtime"): reason for path in ("", "p", "p/q", "r")})


def empty_things() -> LayerSet:
    """Empty files and folders, a layer with nothing in it, and one with a folder alone."""
    return _set((file("file"), folder("folder"), folder("a"), folder("a/b"), file("a/b/c")), (), (folder("last"),))


def devices() -> LayerSet:
    """Character and block devices with small and large numbers, fifos, and whiteouts of overlayfs, which are nothing but devices here."""
    numbers = [(0, 0), (1, 3), (8, 1), (255, 255), (256, 256), (4095, 1_048_575)]
    items = [
        device(f"{kind.decode()}-{major}-{minor}", kind, major, minor)
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE)
        for major, minor in numbers
    ]
    return _set((*items, device("fifo", tarfile.FIFOTYPE)))


def modes_and_owners() -> LayerSet:
    """Setuid, setgid, sticky, nothing at all; owners up to the largest; a folder whose mode a higher layer changes."""
    modes = [0, 0o7777, 0o4755, 0o2755, 0o1777, 0o644]
    items = [make(f"{kind}-{mode:o}", mode=mode, mtime=1) for mode in modes for kind, make in (("file", file), ("folder", folder))]
    owners = [0, 1000, 65535, 65536, 2_097_151, 2_097_152, 4_294_967_294]
    items += [file(f"owner-{owner}", b"o", uid=owner, gid=4_294_967_294 - owner, mode=0o4711) for owner in owners]
    return _set((*items, folder("d", mode=0o700, uid=1), file("d/in", b"i")), (folder("d", mode=0o1755, uid=7, gid=8, mtime=3),))


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
    return _set(tuple(items))


def clusters() -> LayerSet:
    """Sizes one byte below, at and above blocks and clusters, of bytes that compress well, somewhat, and not at all."""
    kinds: dict[str, Callable[[int, int], bytes]] = {"text": text, "noise": noise, "zero": lambda size, _: bytes(size)}
    sizes = [edge + shift for edge in (4096, CLUSTER, 2 * CLUSTER, 1 << 20) for shift in (-1, 0, 1)]
    items = [file(f"{kind}-{size}", make(size, size)) for kind, make in kinds.items() for size in sizes]
    return _set((*items, file("segments", text(1 << 20) * 17)))  # mkfs.erofs cuts files into segments of 16 MiB


def aufs_housekeeping() -> LayerSet:
    """What aufs leaves in layers is not part of the image."""
    return _set((*LOWER, file(".wh..wh.aufs"), folder(".wh..wh.orph"), folder(".wh..wh.plnk")))


def wide_and_deep() -> LayerSet:
    """A folder with many files, and folders in folders."""
    deep = ["/".join(["d"] * count) for count in range(1, 60)]
    return _set(
        (folder("wide"), *(file(f"wide/{n:04}", b"%d" % n, mtime=n) for n in range(1500)), *(folder(path) for path in deep)),
        (file("wide/.wh.0007"),),
    )


def chance(seed: int) -> LayerSet:
    """Five layers of whatever comes, with so few names that they meet."""
    dice = random.Random(seed)
    layers = []
    for _ in range(5):
        found: dict[str, Item] = {}
        for path in ("/".join(dice.choices("abc", k=dice.randint(1, 3))) for _ in range(8)):
            above = [path[:end] for end, letter in enumerate(path) if letter == "/"]
            if path in found or any(not found[parent][0].isdir() for parent in above if parent in found):
                continue
            for parent in above:
                found.setdefault(parent, folder(parent, mtime=dice.randint(1, 99), mode=dice.choice((0o700, 0o755))))
            found[path] = _any(dice, path, [name for name, item in found.items() if item[0].isreg()])
        hidden = [path for path in found if dice.random() < 0.3]
        marks = [file(f"{path}/.wh..wh..opq") for path in hidden if found[path][0].isdir()]
        marks += [file("/".join([*path.split("/")[:-1], f".wh.{dice.choice('abc')}"])) for path in hidden]
        layers.append((*marks, *found.values()))  # a whiteout behind a folder's own entry would date that folder now in umoci
    return _set(*layers)


def _any(dice: random.Random, path: str, files: list[str]) -> Item:
    kind = dice.randrange(4 if files else 3)
    if kind == 0:
        return folder(path, mtime=dice.randint(1, 99))
    if kind == 1:
        return symlink(path, "nowhere", mtime=dice.randint(1, 99))
    return hardlink(path, dice.choice(files)) if kind == 3 else file(path, dice.randbytes(dice.randint(0, 9)), mtime=dice.randint(1, 99))


LAYER_SETS: dict[str, Callable[[], LayerSet]] = {
    made.__name__: made
    for made in (
        whiteouts, whiteout_of_the_same_layer, opaque, opaque_root, opaque_and_new, three_layers_of_whiteouts, type_changes, hardlinks,
        hardlinks_whose_target_changes, hardlink_to_a_whited_out_target, hardlink_to_a_target_whited_out_before, capabilities, many_xattrs,
        large_xattrs, sparse_gnu, sparse_pax, long_names, names_that_are_no_text, zstd_layers, gzip_members, plain_layers,
        symlinked_parents, symlinks_to_folders_replaced, duplicates, odd_spellings, parents_that_no_layer_has, empty_things, devices,
        modes_and_owners, times, clusters, aufs_housekeeping, wide_and_deep,
    )
}  # fmt: skip
LAYER_SETS |= {f"chance_{seed}": partial(chance, seed) for seed in range(8)}
