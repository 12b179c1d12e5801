"""Sets of layers that are hard to merge."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable

from support.layers.layer_set import LOWER, LayerSet, layer_set
from support.layers.tars import Item, device, file, folder, hardlink, symlink


def whiteouts() -> LayerSet:
    """Of a file, a folder, a symlink, of nothing, and of something in a folder that is not there."""
    gone = (file("etc/.wh.one"), file("etc/.wh.deep"), file(".wh.lib"), file("etc/.wh.nothing"), file("none/.wh.such"))
    return layer_set(LOWER, gone)


def whiteout_of_the_same_layer() -> LayerSet:
    """A whiteout hides what is below its layer, wherever it stands among the layer's members."""
    return layer_set(
        LOWER,
        (
            file("etc/one", b"new", mtime=20),
            file("etc/.wh.one"),
            file("etc/.wh.two"),
            file("etc/two", b"new", mtime=21),
        ),
    )


def opaque() -> LayerSet:
    """An opaque folder keeps what its own layer puts in, before and behind the mark."""
    return layer_set(
        LOWER,
        (
            folder("etc", mtime=20),
            file("etc/before", b"b", mtime=21),
            file("etc/.wh..wh..opq"),
            file("etc/four", mtime=22),
        ),
    )


def opaque_root() -> LayerSet:
    """All lower layers are hidden."""
    return layer_set(LOWER, (file(".wh..wh..opq"), file("only", b"o", mtime=20)))


def opaque_and_new() -> LayerSet:
    """An opaque mark in a folder that no lower layer has, and in one below a symlink."""
    return layer_set(
        LOWER, (folder("new", mtime=20), file("new/.wh..wh..opq"), file("new/a", mtime=21)), (file("lib/.wh..wh..opq"),)
    )


def three_layers_of_whiteouts() -> LayerSet:
    """Hidden, put back, hidden again, put back as something else."""
    return layer_set(LOWER, (file("etc/.wh.deep"),), (folder("etc/deep", mtime=30), file("etc/deep/y", mtime=31)),
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
    return layer_set(tuple(below), tuple(above))


def hardlinks() -> LayerSet:
    """Within a layer, to lower layers, to a symlink and a device, and chains of them."""
    one = (
        *LOWER,
        hardlink("etc/again", "etc/one"),
        hardlink("chain", "etc/again"),
        device("null", tarfile.CHRTYPE, 1, 3),
    )
    two = (
        hardlink("upper", "etc/two"),
        hardlink("null-too", "null"),
        hardlink("lib-too", "lib"),
        hardlink("more", "chain"),
    )
    return layer_set(one, two)


def hardlinks_whose_target_changes() -> LayerSet:
    """A link keeps the file it was made to, whatever comes to be at the target's place."""
    return layer_set(
        (*LOWER, hardlink("keeps", "etc/one"), hardlink("keeps-too", "etc/two")),
        (file("etc/one", b"new", mtime=60), file("etc/.wh.two")),
    )


def hardlink_to_a_whited_out_target() -> LayerSet:
    """The target is hidden by the very layer that links to it."""
    return layer_set(LOWER, (hardlink("a", "etc/one"), file("etc/.wh.one")))


def hardlink_to_a_target_whited_out_before() -> LayerSet:
    """As above, with the whiteout in front of the link."""
    reason = (
        "umoci applies whiteouts where they stand; the specification says before all additions, and order has no "
        "meaning there"
    )
    return layer_set(LOWER, (file("etc/.wh.one"), hardlink("a", "etc/one")), refuses=reason)


def symlinked_parents() -> LayerSet:
    """A member below a symlink goes where the link leads, inside the root, also for whiteouts and hardlinks."""
    links = (
        *LOWER,
        symlink("up", "../../usr/lib", mtime=90),
        symlink("etc/chain", "../abs", mtime=91),
        symlink("usr/loop", "../usr", mtime=92),
    )
    above = tuple(
        file(f"{parent}/{n}", b"n", mtime=93)
        for n, parent in enumerate(("lib", "abs", "up", "etc/chain", "usr/loop/lib"))
    )
    above += (file("lib/.wh.x"), hardlink("link", "lib/0"), folder("abs/sub", mtime=94))
    return layer_set(links, above)


def symlinks_to_folders_replaced() -> LayerSet:
    """A folder in a layer's own right replaces the symlink of a lower layer, and the other way round."""
    return layer_set(
        LOWER,
        (folder("lib", mtime=95), file("lib/own", b"o", mtime=96)),
        (symlink("etc", "usr", mtime=97),),
        (file("etc/inside", mtime=98),),
    )


def duplicates() -> LayerSet:
    """One path several times in one layer: the last counts; of folders, what they hold stays."""
    return layer_set((
        file("a", b"first", mtime=1), file("a", b"second!", mtime=2, mode=0o600), folder("d", mtime=3),
        file("d/in", b"i", mtime=4), folder("d", mtime=5, mode=0o700), file("b", b"b"), symlink("b", "a", mtime=6),
        symlink("c", "a"), file("c", b"c", mtime=7), hardlink("e", "a"), file("a", b"third", mtime=8),
        folder("f", mtime=9), file("f/gone", b"g"), file("f", b"file now", mtime=9),
    ))  # fmt: skip


def odd_spellings() -> LayerSet:
    """Leading dots and slashes, doubled slashes, trailing slashes, dots on the way."""
    files = [file(name, name.encode(), mtime=2) for name in ("/a/b", "./a/./c", "a/x/../d", "a//e")]
    return layer_set(
        (
            folder("./a//", mtime=1),
            *files,
            hardlink("./f", "/a//b"),
            folder("g/", mtime=3),
            symlink("./h", "./a//b", mtime=4),
        )
    )


def parents_that_no_layer_has() -> LayerSet:
    """Files in folders that are in no layer."""
    reason = "a folder that is in no layer is made at unpacking, and dated then; ours is dated to the epoch"
    items = (file("p/q/file", b"f", mtime=1), symlink("r/link", "x", mtime=2))
    return layer_set(items, umoci={(path, "mtime"): reason for path in ("", "p", "p/q", "r")})


def aufs_housekeeping() -> LayerSet:
    """What aufs leaves in layers is not part of the image."""
    return layer_set((*LOWER, file(".wh..wh.aufs"), folder(".wh..wh.orph"), folder(".wh..wh.plnk")))


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
        layers.append(
            (*marks, *found.values())
        )  # a whiteout behind a folder's own entry would date that folder now in umoci
    return layer_set(*layers)


def _any(dice: random.Random, path: str, files: list[str]) -> Item:
    kind = dice.randrange(4 if files else 3)
    if kind == 0:
        return folder(path, mtime=dice.randint(1, 99))
    if kind == 1:
        return symlink(path, "nowhere", mtime=dice.randint(1, 99))
    return (
        hardlink(path, dice.choice(files))
        if kind == 3
        else file(path, dice.randbytes(dice.randint(0, 9)), mtime=dice.randint(1, 99))
    )
