"""Whatever an archive holds, reading it ends with a result or a `ShedError` whose text is printable: soon, and in
little memory.

Three kinds: layers (headers, PAX records, sparse maps, whiteouts, links), layouts (index, manifest, config,
annotations), and what `docker save` writes.  `SHED_FUZZ_SECONDS` asks for a longer, random run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import resource
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shed.errors import ShedError
from shed.images.annotations import BootAnnotations, boot_blobs
from shed.oci.archive import open_archive, open_blob
from shed.oci.decompression import Spool
from shed.oci.digest import digest_bytes
from shed.oci.flatten import flatten
from shed.oci.layers import read_layer
from shed.oci.selection import select_image, select_named
from shed.oci.store import LayoutStore
from shed.oci.tarheader import BLOCK
from shed.oci.tarstream import read_tar
from shed.oci.unpack_limits import Unpacking
from support.layers.tars import Image, close_sources, file, folder, hardlink, source, symlink, tar

log = logging.getLogger(__name__)
SECONDS = float(os.environ.get("SHED_FUZZ_SECONDS", "0"))
EXAMPLES = 150
"""Archives of each kind in a run; a longer one is several such runs."""
SLOWEST = 5.0
"""Seconds of a processor that one small archive may take."""
MEMORY = 512 << 20
"""Bytes that may be allocated beyond what the process has."""
NAMES = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "..",
    "../x",
    "/a",
    "./a",
    "a/../b",
    "a//b",
    ".wh.a",
    "a/.wh.b",
    "a/.wh..wh..opq",
    ".wh..wh.plnk",
    "n" * 300,
    "é\x1b",
    "",
]
SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "700", "GNU.sparse.name": "s"}
LAYER = (
    tar(
        folder("a"),
        file("a/x", b"data" * 200, pax_headers={"SCHILY.xattr.user.a": "v", "mtime": "5.5", "path": "a/long"}),
        file("n" * 300, b"x" * 700),
        symlink("l", "a/" + "t" * 200),
        hardlink("h", "a/long"),
        file("GNUSparseFile.0/s", b"1\n0\n512\n".ljust(512, b"\0") + b"z" * 512, pax_headers=SPARSE),
        file("p", b"12345", pax_headers={"GNU.sparse.map": "0,2,10,3", "GNU.sparse.size": "20"}),
        file("a/.wh.y"),
    ),
    tar(file("n" * 300, b"x" * 700), symlink("k" * 120, "t" * 300), format=tarfile.GNU_FORMAT),
)
numbers = st.one_of(
    st.sampled_from([0, 1, 2, -1, 7, 511, 512, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 64, 10**30]), st.integers(-5, 5000)
)
junk = st.recursive(
    st.none()
    | st.booleans()
    | numbers
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["sha256:" + "0" * 64, "\x1b]0;x\x07", "linux", "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@contextlib.contextmanager
def memory_limit() -> Iterator[None]:
    """Let allocations fail that are beyond `MEMORY`."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Let nothing out but what is promised, and look at its text."""
    text = ""
    try:
        yield
    except ShedError as error:
        text = f"{error.message}{error.hint or ''}"
    assert text.isprintable(), ascii(text)


def checksummed(block: bytes) -> bytes:
    """Return a header block with the checksum that it should have."""
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


@st.composite
def layers(draw: st.DrawFn) -> bytes:
    """A layer that is damaged, its headers with right checksums so that they are read; or one made of odd names."""
    if draw(st.booleans()):
        kinds = [
            file,
            folder,
            lambda name: symlink(name, draw(st.sampled_from(NAMES))),
            lambda name: hardlink(name, draw(st.sampled_from(NAMES))),
        ]
        chosen = draw(st.lists(st.tuples(st.sampled_from(kinds), st.sampled_from(NAMES)), max_size=12))
        return tar(*(make(name) for make, name in chosen))
    data = bytearray(draw(st.sampled_from(LAYER)))
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, len(data) - 1))
        how = draw(st.sampled_from(["byte", "field", "text", "cut", "repeat"]))
        if how == "byte":
            data[place] = draw(st.integers(0, 255))
        elif how == "field":
            start = place // BLOCK * BLOCK + draw(
                st.sampled_from([0, 100, 108, 116, 124, 136, 156, 157, 257, 345, 386, 482, 483])
            )
            value = draw(
                st.sampled_from(
                    [
                        b"x",
                        b"g",
                        b"L",
                        b"K",
                        b"S",
                        b"1",
                        b"7",
                        b"V",
                        b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
                        b"77777777777\0",
                        b"\0" * 12,
                    ]
                )
            )
            data[start : start + len(value)] = value
        elif how == "text":
            value = draw(
                st.sampled_from(
                    [b"30 GNU.sparse.offset=", b"999999999 x=", b"=", b"\n", b"1\n" * 40, b"9" * 60, b"SCHILY.xattr."]
                )
            )
            data[place : place + len(value)] = value
        elif how == "cut" and place % 4 == 0:
            del data[max(place, BLOCK) :]
        else:
            piece = data[place // BLOCK * BLOCK :][: 4 * BLOCK]
            data[place // BLOCK * BLOCK : place // BLOCK * BLOCK] = piece
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        if any(data[at : at + BLOCK]) and draw(st.integers(0, 3)):
            data[at : at + BLOCK] = checksummed(bytes(data[at : at + BLOCK]))
    return bytes(data)


def use_layers(below: bytes, above: bytes) -> None:
    """List both, merge them, and read what comes of it."""
    unpacking = Unpacking()
    try:
        with told():
            lists = [
                list(read_tar(source(data), unpacking.part(f"layer {number}")))
                for number, data in enumerate((below, above), 1)
            ]
            for entry in flatten(lists):
                if entry.content:
                    entry.content.pread(1 << 16, max(0, entry.size - (1 << 15)))
    finally:
        close_sources()


def bend(value: Any, draw: st.DrawFn) -> Any:
    """Return a JSON value with one part replaced, removed, or repeated."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value)))
        how = draw(st.sampled_from(["inside", "inside", "inside", "remove", "add"]))
        if how == "remove":
            return {name: item for name, item in value.items() if name != key}
        return value | ({draw(st.text(max_size=5)): draw(junk)} if how == "add" else {key: bend(value[key], draw)})
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(value) - 1))
        how = draw(st.sampled_from(["inside", "inside", "repeat", "remove"]))
        return (
            value[:at]
            + {"inside": [bend(value[at], draw)], "repeat": [value[at]] * 3, "remove": []}[how]
            + value[at + 1 :]
        )
    return draw(junk)


@st.composite
def layouts(draw: st.DrawFn) -> Image:
    """An image whose documents are bent, with right digests all the same."""
    image = Image(tar(file("a", b"x")), tar(file("b")))
    boot = {
        f"io.shed.{name}.digest": digest_bytes(name.encode())
        for name in ("kernel", "initrd", "rootfs.erofs", "runtime.erofs")
    }
    image.manifest["annotations"] = {"io.shed.schema-version": "1", "io.shed.rootfs.logical-size": "7", **boot}
    for name in draw(st.lists(st.sampled_from(["config", "manifest"]), max_size=2)):
        bent = bend(getattr(image, name), draw)
        setattr(
            image,
            name,
            bent
            if isinstance(bent, dict) and (name == "config" or bent.keys() >= {"mediaType"})
            else getattr(image, name),
        )
    image.seal(
        annotations={"org.opencontainers.image.ref.name": draw(st.text(max_size=5))},
        platform={"os": "linux", "architecture": "amd64"},
    )
    if draw(st.booleans()):
        image.index = bend(image.index, draw)
    return image


def use_archive(path: Path, folder: Path) -> None:
    """Choose every image of the archive, look at what it boots from, and unpack its layers."""
    store = LayoutStore(folder / "images")
    with told(), open_archive(path, scratch=folder) as archive:
        with told():
            select_image(archive)
        for _, chosen in itertools.islice(select_named(archive), 4):
            with told():
                boot_blobs(chosen.digest, BootAnnotations.parse(chosen.manifest.annotations))
            unpacking = Unpacking()
            for number, (layer, diff_id) in enumerate(
                zip(chosen.manifest.layers, chosen.config.diff_ids, strict=True), 1
            ):
                part = unpacking.part(f"layer {number}")
                with store.stage() as blob, Spool(folder, part) as spool:
                    read_layer(open_blob(archive, layer, part.what), layer, diff_id, blob=blob, spool=spool, part=part)


@st.composite
def saved(draw: st.DrawFn) -> bytes:
    """What `docker save` writes, bent."""
    layer = tar(file("a", b"x"))
    config: Any = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest_bytes(layer)]},
    }
    manifest: Any = [{"Config": "c.json", "RepoTags": ["a:b"], "Layers": ["0/layer.tar"]}]
    config, manifest = (bend(value, draw) if draw(st.booleans()) else value for value in (config, manifest))
    members = [
        ("manifest.json", json.dumps(manifest).encode()),
        ("c.json", json.dumps(config).encode()),
        ("0/layer.tar", layer),
    ]
    kept = [member for member in members if draw(st.integers(0, 9))]
    return tar(
        *(
            file(name, data[: draw(st.integers(0, len(data)))] if not draw(st.integers(0, 9)) else data)
            for name, data in kept
        )
    )


def repeat(run: Callable[[], None]) -> None:
    """Run once, or until `SECONDS` have passed."""
    started = time.monotonic()
    with memory_limit():
        run()
        while time.monotonic() - started < SECONDS:
            run()


options = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not SECONDS,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("kind", ["layers", "layouts", "docker"])
def test_hostile_archives(kind: str, tmp_path: Path) -> None:
    """None of them ends in anything but a result or one clear error, and all that they left is gone."""
    path, scratch = tmp_path / "archive.tar", tmp_path / "scratch"
    scratch.mkdir()
    count = 0

    def one(work: Callable[[], None]) -> None:
        nonlocal count
        count += 1
        begin = time.process_time()
        work()
        assert time.process_time() - begin < SLOWEST

    @options
    @given(layers(), layers())
    def run_layers(below: bytes, above: bytes) -> None:
        one(lambda: use_layers(below, above))

    @options
    @given(layouts())
    def run_layouts(image: Image) -> None:
        if isinstance(image.index, dict):
            path.write_bytes(tar(*(file(name, data) for name, data in image.names().items())))
            one(lambda: use_archive(path, scratch))

    @options
    @given(saved())
    def run_docker(data: bytes) -> None:
        path.write_bytes(data)
        one(lambda: use_archive(path, scratch))

    repeat({"layers": run_layers, "layouts": run_layouts, "docker": run_docker}[kind])
    log.warning("%s: %d archives", kind, count)
    assert count >= 100
    assert [left.name for left in scratch.rglob("*") if left.is_file() and left.name.startswith(".staging")] == []
