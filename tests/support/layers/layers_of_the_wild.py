"""Sets of layers as other programs write them: odd, and read alike by all that unpack images."""

from __future__ import annotations

from support.layers.layer_set import ROOT, LayerSet, layer_set
from support.layers.raw_headers import END, GNU, raw
from support.layers.tars import file, folder, tar


def _behind_root(*members: bytes) -> LayerSet:
    """Return a set of one layer: the root, the folders d and d/deep, and `members`."""
    head = tar(ROOT, folder("d", mtime=80), folder("d/deep", mtime=80)).rstrip(b"\0")
    return layer_set(head + bytes(-len(head) % 512) + b"".join(members) + END)


def versions_of_ustar() -> LayerSet:
    """Names in two parts under headers whose version is not "00", of Maven, Ant and JRuby."""
    versions = (b"00", b"\0\0", b"  ", b" \0", b"99")
    return _behind_root(
        *(raw(b"v%d" % n, b"x", prefix=b"d/deep", magic=b"ustar\0" + version) for n, version in enumerate(versions))
    )


def prefix_under_gnu() -> LayerSet:
    """A name in two parts under GNU's magic, as Go wrote it before 1.8; and times in that place, which are no name."""
    times = b"00000000120\x0000000000121\0"
    return _behind_root(raw(b"named", b"x", prefix=b"d/deep", magic=GNU), raw(b"timed", b"x", prefix=times, magic=GNU))


def rubbish_behind_nul() -> LayerSet:
    """Fields that end with a NUL before their end, and hold what was in the writer's memory behind it."""
    return _behind_root(
        raw(b"d/name\0rubbish", b"x", mode=b"755\0junk", uid=b"7\0\xff\xff", gid=b" 10\0 9 9", mtime=b"120\0\x01\x02"),
        raw(b"d/link", kind=b"2", link=b"name\0old target", mode=b"0000777\0"),
        raw(b"in", b"x", prefix=b"d/deep\0old/prefix"),
        raw(b"././@LongLink", b"d/" + b"n" * 120 + b"\0rubbish\0", kind=b"L", magic=GNU) + raw(b"n", magic=GNU),
    )


def owners() -> LayerSet:
    """The owners -2 (nobody, to NFS and macOS) and -1 ("leave it as it is", to chown), in headers and in PAX."""
    minus_two, largest = b"\xff" * 7 + b"\xfe", b"\x80\0\0\0\xff\xff\xff\xff"
    return _behind_root(
        raw(b"d/two", uid=minus_two, gid=minus_two),
        raw(b"d/one", uid=b"\xff" * 8),
        raw(b"d/largest", uid=largest, gid=largest),
        tar(
            file("d/pax", pax_headers={"uid": "-2", "gid": "4294967295", "mtime": "5"}),
            folder("d/all", pax_headers={"uid": "4294967295", "gid": "-1", "mtime": "5"}),
        ),
    )


def modes_of_symlinks() -> LayerSet:
    """Symlinks with the modes of the systems that they come from: Linux has only one."""
    return _behind_root(
        *(raw(b"d/l%d" % n, kind=b"2", link=b"x", mode=b"%07o\0" % mode) for n, mode in enumerate((0, 0o644, 0o4755)))
    )
