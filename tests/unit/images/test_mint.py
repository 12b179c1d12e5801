"""Minting: what comes out, that it is the same every time, and that a failure leaves the store as it was."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from shed.entries import Entry
from shed.erofs.compression import Compression
from shed.erofs.errors import ErofsError
from shed.erofs.reader import Image as ErofsImage
from shed.errors import DataError, NotFoundError, ShedError, StorageError, UsageError
from shed.images.mint import mint_archive
from shed.images.writers import BuiltinWriter
from shed.oci.descriptor import Platform
from shed.oci.digest import digest_bytes
from shed.oci.staging import StagedBlob
from shed.oci.store import LayoutStore
from shed.progress import BytesEvent, Event, PhaseEvent, Progress
from shed.version import VERSION
from support.images.minted import LAYER, mint_small, small_kit
from support.layers.tars import Image, file, folder, hardlink, symlink, tar

UPPER = tar(
    file("etc/.wh.passwd"), symlink("lib", "usr/lib"), file("lib/x", os.urandom(300_000)), hardlink("sh", "bin/sh")
)


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """An empty store."""
    return LayoutStore(tmp_path / "images")


@pytest.fixture
def used(store: LayoutStore, tmp_path: Path) -> LayoutStore:
    """A store in which `base` is an image."""
    mint_small(store, tmp_path)
    return store


def state(store: LayoutStore) -> dict[str, bytes]:
    """Return all files of the store and their contents, without locks."""
    return {
        str(path.relative_to(store.root)): path.read_bytes()
        for path in store.root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def lasting(store: LayoutStore) -> dict[str, bytes]:
    """Return what `state` does, without the notes about blobs that were read and found to be sound."""
    return {path: data for path, data in state(store).items() if not path.startswith("verified/")}


def test_minted_image(store: LayoutStore, tmp_path: Path) -> None:
    """Config and layers are in the store byte for byte, and the manifest names what booting needs."""
    image = Image(LAYER, UPPER)
    image.manifest["annotations"] = {"org.example": "kept", "io.shed.kernel.digest": "sha256:" + "0" * 64}
    kit = small_kit(store)
    result = mint_archive(store, image.archive(tmp_path / "a.tar"), "base", kit=kit, source_ref="example.org/base:1")
    for digits, data in image.blobs.items():
        if data != json.dumps(image.manifest).encode():
            assert store.blob_path(f"sha256:{digits}").read_bytes() == data
    manifest = store.read_manifest(result.manifest_digest)
    assert [layer.to_json() for layer in manifest.layers] == image.manifest["layers"]
    assert manifest.annotations == {
        "org.example": "kept",
        "io.shed.schema-version": "1",
        "io.shed.variant": "base",
        "io.shed.source-ref": "example.org/base:1",
        "io.shed.kernel.digest": kit.kernel,
        "io.shed.initrd.digest": kit.initrd,
        "io.shed.runtime.erofs.digest": kit.runtime,
        "io.shed.rootfs.erofs.digest": result.root_digest,
        "io.shed.rootfs.erofs.size": str(store.size(result.root_digest)),
        "io.shed.kernel.size": "6",
        "io.shed.initrd.size": "6",
        "io.shed.runtime.erofs.size": "7",
        "io.shed.rootfs.logical-size": str(result.logical_size),
        "io.shed.build-tools": manifest.annotations["io.shed.build-tools"],
    }
    assert manifest.annotations["io.shed.build-tools"].startswith(f"shed-erofs/{VERSION} lz4/")
    assert manifest.annotations["io.shed.build-tools"].endswith(" lz4")
    tag = store.tag("base")
    assert tag is not None
    assert tag.digest == result.manifest_digest
    assert (result.root_size, result.logical_size) == (store.size(result.root_digest), 310_000)
    assert set(result.timings) >= {"ingest", "flatten", "write", "check", "commit"}
    store.verify(result.root_digest)


def test_root_holds_the_merged_tree(store: LayoutStore, tmp_path: Path) -> None:
    """What a container runtime would show is what the EROFS blob holds."""
    result = mint_archive(store, Image(LAYER, UPPER).archive(tmp_path / "a.tar"), "base", kit=small_kit(store))
    with ErofsImage.open(store.blob_path(result.root_digest)) as root:
        paths = sorted(path for path, _ in root.walk())
        assert paths == [b"", b"bin", b"bin/sh", b"etc", b"lib", b"sh", b"usr", b"usr/lib", b"usr/lib/x"]
        assert root.lookup(b"sh").nid == root.lookup(b"bin/sh").nid


def test_same_input_same_digests(store: LayoutStore, tmp_path: Path) -> None:
    """Two stores, and archives of two kinds, give the same manifest."""
    image = Image(LAYER, UPPER)
    first = mint_archive(store, image.archive(tmp_path / "a.tar"), "base", kit=small_kit(store))
    other = LayoutStore(tmp_path / "other")
    second = mint_archive(other, image.layout(tmp_path / "layout"), "base", kit=small_kit(other))
    assert (first.manifest_digest, first.root_digest) == (second.manifest_digest, second.root_digest)
    assert (store.root / "index.json").read_bytes() == (other.root / "index.json").read_bytes()


def test_minting_again_does_nothing(store: LayoutStore, tmp_path: Path) -> None:
    """The same archive, kit and options are known; another name, compression or `force` is not; a damaged blob is
    mended.
    """
    archive = Image(LAYER).archive(tmp_path / "a.tar")
    kit = small_kit(store, algorithms=("lz4", "zstd"))
    first = mint_archive(store, archive, "base", kit=kit)
    before = lasting(store)
    again = mint_archive(store, archive, "base", kit=kit)
    assert again.reused
    assert (again.manifest_digest, again.root_digest, again.root_size) == (
        first.manifest_digest,
        first.root_digest,
        first.root_size,
    )
    assert lasting(store) == before
    assert not mint_archive(store, archive, "base", kit=kit, force=True).reused
    other = mint_archive(store, archive, "base", kit=kit, writer=BuiltinWriter(Compression.parse("lz4")))
    assert not other.reused
    assert other.root_digest != first.root_digest
    root = store.blob_path(other.root_digest)
    root.chmod(0o644)
    root.write_bytes(b"damaged")
    mended = mint_archive(store, archive, "base", kit=kit, writer=BuiltinWriter(Compression.parse("lz4")))
    assert not mended.reused
    assert mended.root_digest == other.root_digest
    store.verify(mended.root_digest, again=True)


def test_the_kernel_decides_the_default_compression(store: LayoutStore, tmp_path: Path) -> None:
    """zstd where the kit's kernel reads it, LZ4 where it does not."""
    archive = Image(LAYER).archive(tmp_path / "a.tar")
    for algorithms, expected in ((("lz4", "zstd"), "zstd:3"), (("lz4",), "lz4")):
        minted = mint_archive(store, archive, "base", kit=small_kit(store, algorithms=algorithms))
        tools = store.read_manifest(minted.manifest_digest).annotations["io.shed.build-tools"]
        assert tools.split()[-1] == expected


def test_tag_moves_to_the_new_image(store: LayoutStore, tmp_path: Path) -> None:
    """Minting another image under a name moves the name."""
    first = mint_small(store, tmp_path)
    second = mint_small(store, tmp_path, layer=tar(file("new")))
    tag = store.tag("base")
    assert tag is not None
    assert tag.digest == second.manifest_digest != first.manifest_digest
    assert {entry.digest for entry in store.index().manifests} == {first.manifest_digest, second.manifest_digest}


def fails(store: LayoutStore, archive: Path | str, error: type[ShedError], match: str, **options: object) -> ShedError:
    """Mint what must fail, and compare the store before and after; that a blob was read again may be noted."""
    kit = small_kit(store)
    before = lasting(store)
    with pytest.raises(error, match=match) as caught:
        mint_archive(store, archive, "base", kit=kit, **options)  # type: ignore[arg-type]
    assert lasting(store) == before
    return caught.value


class ForgetfulWriter(BuiltinWriter):
    """Writes files as owned by somebody else."""

    def write(self, entries: Sequence[Entry], blob: StagedBlob, on_bytes: Callable[[int], None]) -> None:
        super().write(
            [replace(entry, uid=entry.uid + 1) if entry.content else entry for entry in entries], blob, on_bytes
        )


class FlippingWriter(BuiltinWriter):
    """Writes one bit in the data of the first file wrongly."""

    def write(self, entries: Sequence[Entry], blob: StagedBlob, on_bytes: Callable[[int], None]) -> None:
        super().write(entries, blob, on_bytes)
        (byte,) = os.pread(blob.file.fileno(), 1, 4096 + 100)
        os.pwrite(blob.file.fileno(), bytes([byte ^ 1]), 4096 + 100)


@pytest.mark.parametrize(
    ("writer", "problem"), [(ForgetfulWriter(), "has uid 1 instead of 0"), (FlippingWriter(), "differs|decompress|LZ4")]
)
def test_failing_gate_leaves_nothing(store: LayoutStore, tmp_path: Path, writer: BuiltinWriter, problem: str) -> None:
    """An image whose bytes are not what went in is not kept: no blob, no tag."""
    archive = Image(tar(file("a", os.urandom(50_000)))).archive(tmp_path / "a.tar")
    fails(store, archive, ErofsError, problem, writer=writer)


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (tar(file("../evil", b"x")), "layer 2: '../evil' leads out of the root"),
        (tar(hardlink("a", "../../etc/passwd")), "layer 2: .*leads out of the root"),
        (tar(hardlink("a", "nothing")), "layer 2: .*not there"),
        (tar(file("a", b"x" * 5000))[:2000], "layer 2: tar member 'a' claims 5000 bytes"),
        (b"no tar" * 1000, "layer 2: bad"),
        (
            tar(file("a", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 39)})),
            "the files of the image have 512 GiB",
        ),
    ],
    ids=["dot-dot", "link out", "dangling link", "cut", "garbage", "half a terabyte of nothing"],
)
def test_hostile_layers(used: LayoutStore, tmp_path: Path, layer: bytes, problem: str) -> None:
    """A bad layer is one clear error, and the name still means the image it meant."""
    fails(used, Image(LAYER, layer).archive(tmp_path / "a.tar"), DataError, problem)


def test_damaged_layer(used: LayoutStore, tmp_path: Path) -> None:
    """An altered and a truncated layer; after that, the good archive works."""
    good = Image(LAYER, UPPER)
    good.seal()
    bad = Image(LAYER, UPPER)
    bad.seal()
    digits = bad.manifest["layers"][1]["digest"][7:]
    data = bad.blobs[digits]
    bad.blobs[digits] = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
    fails(used, bad.archive(tmp_path / "bad.tar"), DataError, "layer 2, blob: digest mismatch")
    bad.blobs[digits] = data[:1000]
    fails(used, bad.archive(tmp_path / "cut.tar"), DataError, "layer 2 .* has 1000 bytes, expected")
    assert mint_archive(used, good.archive(tmp_path / "good.tar"), "base", kit=small_kit(used)).root_size


def test_every_fault_of_an_archive_names_it(used: LayoutStore, tmp_path: Path) -> None:
    """Whatever is found, in whichever phase, the message says in which file, and the hint what to do."""
    lying = Image(LAYER)
    lying.config["rootfs"]["diff_ids"] = ["sha256:zz"]
    for number, image in enumerate(
        (Image(b"junk" * 500), Image(tar(file("../../etc/x"))), Image(tar(hardlink("a", "../b"))), lying)
    ):
        archive = image.archive(tmp_path / f"bad-{number}.tar")
        assert fails(used, archive, DataError, rf"bad-{number}\.tar").hint
    for content in (b"", b"text\n" * 200, (tmp_path / "bad-0.tar").read_bytes()[:700]):
        (tmp_path / "bad").write_bytes(content)
        assert fails(used, tmp_path / "bad", DataError, str(tmp_path / "bad")).hint


def test_an_archive_that_cannot_be_read(used: LayoutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails while the archive is read, at any point, is a StorageError that names the archive."""
    archive = Image(LAYER, UPPER).archive(tmp_path / "a.tar")
    pread, inode = os.pread, archive.stat().st_ino
    for reads in (0, 1, 7, 12):
        left = reads

        def failing(fd: int, length: int, offset: int) -> bytes:
            nonlocal left
            if os.fstat(fd).st_ino == inode:
                left -= 1
                if left < 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            return pread(fd, length, offset)

        with monkeypatch.context() as patch:
            patch.setattr("os.pread", failing)
            error = fails(used, archive, StorageError, f"cannot read {archive}: Input/output error")
        assert "kernel log" in (error.hint or "")
        assert left < 0
    assert mint_archive(used, archive, "base", kit=small_kit(used)).root_size


def test_an_archive_that_may_not_be_read(used: LayoutStore, tmp_path: Path) -> None:
    """A path that cannot be opened, in a folder too, is named with its reason."""
    assert fails(used, tmp_path / ("x" * 300), StorageError, "File name too long").hint
    layout = Image(LAYER).layout(tmp_path / "layout")
    (layout / "index.json").unlink()
    (layout / "index.json").symlink_to("index.json")
    assert fails(used, layout, StorageError, f"cannot read {layout}: Too many levels of symbolic links").hint


def test_lying_diff_id(used: LayoutStore, tmp_path: Path) -> None:
    """The config must say what the layer unpacks to."""
    image = Image(LAYER)
    image.config["rootfs"]["diff_ids"] = [digest_bytes(b"other")]
    fails(used, image.archive(tmp_path / "a.tar"), DataError, "layer 1, unpacked: digest mismatch")


def test_full_disk(used: LayoutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space, while unpacking or while writing, is a StorageError with a hint; a retry with space works."""
    archive = Image(LAYER, UPPER).archive(tmp_path / "a.tar")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("shed.oci.decompression.os.pwrite", full)
        error = fails(used, archive, StorageError, "No space left")
        assert error.hint is not None
    with monkeypatch.context() as patch:
        patch.setattr("shed.images.writers.write_image", full)
        fails(used, archive, StorageError, "No space left")
    assert mint_archive(used, archive, "base", kit=small_kit(used)).root_size


def test_compression_the_kernel_cannot_read(used: LayoutStore, tmp_path: Path) -> None:
    """zstd is refused for a kernel without it; lz4hc is lz4 to a kernel; none needs nothing."""
    archive = Image(LAYER).archive(tmp_path / "a.tar")
    zstd = BuiltinWriter(Compression.parse("zstd"))
    error = fails(used, archive, UsageError, "6.12.0-test cannot read EROFS compressed with zstd", writer=zstd)
    assert "lz4" in (error.hint or "")
    for text in ("lz4hc:9", "none"):
        assert mint_archive(
            used, archive, "base", kit=small_kit(used), writer=BuiltinWriter(Compression.parse(text))
        ).root_size


def test_many_layers(store: LayoutStore, tmp_path: Path) -> None:
    """499 layers, as an image of rpm-ostree has, with the few files that a process may usually have open."""
    layers = [tar(folder("etc"), file("etc/os-release"), *(file(f"{number:03}"),)) for number in range(499)]
    archive = Image(*layers, compress=False).archive(tmp_path / "many.tar")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        result = mint_archive(store, archive, "many", kit=small_kit(store))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ErofsImage.open(store.blob_path(result.root_digest)) as image:
        assert {b"%03d" % number for number in range(499)} <= {path for path, _ in image.walk()}


def test_wrong_platform(used: LayoutStore, tmp_path: Path) -> None:
    """An image for other machines than the kit's kernel is refused."""
    archive = Image(LAYER, architecture="arm64").archive(tmp_path / "a.tar")
    fails(used, archive, UsageError, "the image is for linux/arm64, the boot kit for linux/amd64")
    fails(used, archive, UsageError, "no image for linux/amd64", platform=Platform("linux", "amd64"))


def test_other_bad_requests(store: LayoutStore, tmp_path: Path) -> None:
    """A bad name, a file that is not there, a kit whose blob is gone."""
    archive = Image(LAYER).archive(tmp_path / "a.tar")
    kit = small_kit(store)
    with pytest.raises(UsageError, match="invalid image name"):
        mint_archive(store, archive, "../x", kit=kit)
    with pytest.raises(NotFoundError, match="does not exist"):
        mint_archive(store, tmp_path / "nothing", "base", kit=kit)
    store.blob_path(kit.initrd).unlink()
    with pytest.raises(NotFoundError, match=r"boot kit's initrd .* is missing"):
        mint_archive(store, archive, "base", kit=kit)


def test_image_without_layers(store: LayoutStore, tmp_path: Path) -> None:
    """`FROM scratch` and nothing else is an image too, with an empty root."""
    result = mint_archive(store, Image().archive(tmp_path / "a.tar"), "empty", kit=small_kit(store))
    with ErofsImage.open(store.blob_path(result.root_digest)) as root:
        assert [path for path, _ in root.walk()] == [b""]


def test_progress_is_told(store: LayoutStore, tmp_path: Path) -> None:
    """Phases come in order, and bytes of layers and root reach their totals."""
    events: list[Event] = []
    archive = Image(LAYER, UPPER).archive(tmp_path / "a.tar")
    mint_archive(store, archive, "base", kit=small_kit(store), progress=Progress(events.append))
    assert [event.name for event in events if isinstance(event, PhaseEvent)] == [
        "ingest",
        "flatten",
        "write",
        "check",
        "commit",
    ]
    for label in ("layers", "root"):
        counts = [event for event in events if isinstance(event, BytesEvent) and event.label == label]
        assert counts[-1].current == counts[-1].total


def test_mint_killed_at_any_time(tmp_path: Path) -> None:
    """A mint that is killed leaves no tag and no manifest, and the next one works and clears up."""
    archive = Image(LAYER, UPPER).archive(tmp_path / "a.tar")
    program = (
        "import os, sys; from pathlib import Path; from shed.images import mint, verify, writers\n"
        "from shed.oci.store import LayoutStore\n"
        "from support.images.minted import small_kit\nstore = LayoutStore(Path(sys.argv[1]))\n"
        "module, step = sys.argv[3].split('.')\nsetattr(globals()[module], step, lambda *a, **k: os.kill(os.getpid(), "
        "9))\n"
        "mint.mint_archive(store, Path(sys.argv[2]), 'base', kit=small_kit(store))"
    )
    for step in ("mint.read_layer", "mint.flatten", "writers.write_image", "verify.verify_contents"):
        store = LayoutStore(tmp_path / step)
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run([sys.executable, "-c", program, store.root, archive, step], check=False, env=env)
        assert done.returncode == -9
        kit = small_kit(store)
        assert sorted(store.blob_digests()) == sorted([kit.kernel, kit.initrd, kit.runtime])
        assert store.tag_names() == []
        assert list(store.blobs.glob(".staging-*"))
        assert mint_archive(store, archive, "base", kit=kit).root_size
        assert list(store.blobs.glob(".staging-*")) == []


def test_two_mints_of_one_name_at_once(store: LayoutStore, tmp_path: Path) -> None:
    """Both succeed, with the same digests, and the store holds one image."""
    archive = Image(LAYER, UPPER).archive(tmp_path / "a.tar")
    program = (
        "import sys; from pathlib import Path; from shed.images.mint import mint_archive; from shed.oci.store import "
        "LayoutStore\n"
        "from support.images.minted import small_kit\nstore = LayoutStore(Path(sys.argv[1]))\n"
        "print(mint_archive(store, Path(sys.argv[2]), 'base', kit=small_kit(store)).manifest_digest)"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", program, str(store.root), str(archive)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env) for _ in range(2)]
    first, second = (process.communicate(timeout=120)[0].strip() for process in running)
    assert first == second
    assert [
        (entry.digest, entry.annotations["org.opencontainers.image.ref.name"]) for entry in store.index().manifests
    ] == [(first, "base")]
    assert list(store.blobs.glob(".staging-*")) == []


def test_folders_are_kept_with_their_modes(store: LayoutStore, tmp_path: Path) -> None:
    """A sticky folder stays sticky."""
    result = mint_small(store, tmp_path, layer=tar(folder("tmp", mode=0o1777)))
    with ErofsImage.open(store.blob_path(result.root_digest)) as root:
        assert root.lookup(b"tmp").mode & 0o7777 == 0o1777
