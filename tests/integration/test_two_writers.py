"""Two writers that share no code write the same tree, and the tree is what `umoci unpack` shows of the same layers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shed.budget import Limits
from shed.erofs.checker import check
from shed.erofs.compression import Compression
from shed.erofs.errors import ErofsError
from shed.erofs.reader import Image as ErofsImage
from shed.errors import StorageError
from shed.images.bootkit.build import save_kit
from shed.images.bootkit.kit import load_kit
from shed.images.engine import Engine
from shed.images.mint import mint_archive
from shed.images.resolve import resolve_image
from shed.images.writers import BuiltinWriter, ContainerWriter, RootWriter, best_compression
from shed.oci.manifest import REF_NAME
from shed.oci.store import LayoutStore
from shed.run import run
from support.erofs.images import forget_big_clusters
from support.erofs.mount import mounted
from support.erofs.records import differences, record_image
from support.erofs.tree_record import Record, record_folder
from support.erofs.trees import noise, text
from support.erofs.utils import fsck_erofs
from support.images.kit import archive
from support.images.minted import small_kit
from support.layers.layer_set import LayerSet
from support.layers.layer_sets import LAYER_SETS
from support.layers.tars import Image, file, tar
from support.tools.engine import environment, program

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def container(build_tools: Engine) -> ContainerWriter:
    """The writer with the real engine and the real mkfs.erofs."""
    return ContainerWriter("dev", engine=build_tools)


@dataclass
class Case:
    """A set of layers, minted by both writers."""

    layers: LayerSet
    builtin: Path
    container: Path

    def records(self) -> list[dict[str, Record]]:
        """Return what is in the two images."""
        return [_records(path) for path in (self.builtin, self.container)]


@pytest.fixture(scope="module", params=LAYER_SETS)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, container: ContainerWriter
) -> Iterator[Case]:
    layers = LAYER_SETS[request.param]()
    folder = tmp_path_factory.mktemp("case")
    source = layers.image().archive(folder / "archive.tar")
    yield Case(layers, *(_minted(folder, source, writer) for writer in (BuiltinWriter(), container)))
    subprocess.run(["rm", "-rf", folder], check=True)


def _minted(folder: Path, source: Path, writer: RootWriter) -> Path:
    """Return the root of the image `source`, minted by `writer` in a store of its own."""
    store = LayoutStore(folder / type(writer).__name__)
    return store.blob_path(
        mint_archive(store, source, "case", kit=small_kit(store, algorithms=("lz4", "zstd")), writer=writer).root_digest
    )


def _records(path: Path) -> dict[str, Record]:
    with ErofsImage.open(path) as image:
        return record_image(image)


def test_both_writers_write_the_same_tree(case: Case) -> None:
    """Every name, attribute and byte, read back by our reader."""
    builtin, container = case.records()
    assert differences(container, builtin) == []


def test_a_kernel_mount_shows_the_same(case: Case, tmp_path: Path) -> None:
    """The kernel agrees with our reader about what mkfs.erofs wrote."""
    with mounted(case.container, tmp_path / "mount") as folder:
        assert differences(record_folder(os.fsencode(folder)), _records(case.builtin)) == []


def test_the_tree_is_what_umoci_unpacks(case: Case, tmp_path: Path) -> None:
    """All that differs is listed in the set, with its reason, and all that is listed differs."""
    image = Image(*case.layers.layers)
    image.seal(annotations={REF_NAME: "set"})
    command: list[str | Path] = [
        "umoci",
        "unpack",
        "--image",
        f"{image.layout(tmp_path / 'layout')}:set",
        tmp_path / "bundle",
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    if case.layers.umoci_refuses:
        assert done.returncode, case.layers.umoci_refuses
        return
    assert done.returncode == 0, done.stderr.decode()
    unpacked = record_folder(os.fsencode(tmp_path / "bundle/rootfs"))
    assert _differing(_records(case.builtin), unpacked) == set(case.layers.umoci)


def _differing(ours: dict[str, Record], theirs: dict[str, Record]) -> set[tuple[str, str]]:
    found = {(name, "exists") for name in ours.keys() ^ theirs.keys()}
    return found | {
        (name, field)
        for name in ours.keys() & theirs.keys()
        for field in ours[name].keys() | theirs[name].keys()
        if ours[name].get(field) != theirs[name].get(field)
    }


@pytest.mark.parametrize(("name", "compression"), [("busybox", "zstd:3"), ("busybox", "lz4hc:9"), ("busybox", "none")])
def test_both_writers_write_an_image_the_same(name: str, compression: str, build_tools: Engine, tmp_path: Path) -> None:
    """Real images, with every compression."""
    how, source = Compression.parse(compression), archive(name)
    ours = _minted(tmp_path, source, BuiltinWriter(how))
    theirs = _minted(tmp_path, source, ContainerWriter("dev", how, engine=build_tools))
    assert differences(_records(theirs), _records(ours)) == []


def test_both_writers_write_a_published_image_the_same(
    variant_store: LayoutStore, build_tools: Engine, tmp_path: Path
) -> None:
    """As it is published, with systemd and all; `full` has its layers."""
    how = best_compression(load_kit(variant_store).erofs_algorithms)
    theirs = _minted(tmp_path, archive("extensions"), ContainerWriter("dev", how, engine=build_tools))
    assert differences(_records(theirs), _records(resolve_image(variant_store, "extensions").root)) == []


def test_the_same_tree_gives_the_same_bytes(
    container: ContainerWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another place, time zone and umask, and on fewer processors; another tree has another UUID."""
    source = LAYER_SETS["clusters"]().image().archive(tmp_path / "archive.tar")
    first = _minted(tmp_path / "first", source, container)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    processors, umask = os.sched_getaffinity(0), os.umask(0o077)
    os.sched_setaffinity(0, {min(processors)})
    try:
        second = _minted(tmp_path / "second", source, container)
    finally:
        os.sched_setaffinity(0, processors)
        os.umask(umask)
    assert first.name == second.name
    other = _minted(tmp_path / "other", LAYER_SETS["devices"]().image().archive(tmp_path / "other.tar"), container)
    assert _uuid(other) != _uuid(first)


def _uuid(path: Path) -> bytes:
    with ErofsImage.open(path) as image:
        return image.description.superblock.uuid


def test_the_engine_is_found_and_the_image_can_be_named(
    build_tools: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line alone: the image that it makes says what wrote it."""
    program(tmp_path / "docker", "exit 1")  # whatever this machine has of docker, the test's own podman is next
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SHED_DATA_DIR", str(tmp_path / "data"))
    store = LayoutStore(tmp_path / "data/images")
    save_kit(store, small_kit(store, algorithms=("lz4", "zstd")))
    source = LAYER_SETS["times"]().image().archive(tmp_path / "archive.tar")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "shed.cli.main",
        "image",
        "build",
        "-n",
        "base",
        "--from-oci-archive",
        source,
    ]
    missing = subprocess.run(
        [*command, "--build-tools-version", "never-made"], check=False, capture_output=True, text=True
    )
    assert missing.returncode == 1
    assert "podman has no image shed-build-tools:never-made" in missing.stderr
    assert "make build-tools" in missing.stderr
    subprocess.run([*command, "--build-tools-version", "dev"], check=True, capture_output=True)
    tag = store.tag("base")
    assert tag is not None
    written_by = store.read_manifest(tag.digest).annotations["io.shed.build-tools"]
    assert written_by == ContainerWriter("dev", Compression.parse("zstd"), engine=build_tools).name
    assert f"shed-build-tools:dev@{build_tools.image_id('shed-build-tools:dev')}" in written_by


@pytest.mark.parametrize(
    ("megabytes", "problem"),
    [
        (8, "cannot write|too little space"),
        (15, "erofs: .*Could not format the device"),
        (20, "cannot write|No space|too little space"),
    ],
)
def test_a_full_disk(container: ContainerWriter, tmp_path: Path, megabytes: int, problem: str) -> None:
    """Whether the layers, what the tool unpacks, or the tar does not fit: it is told as want of space, and the store is
    as it was.
    """
    source = Image(tar(file("big", noise(6 << 20))), compress=False).archive(tmp_path / "archive.tar")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "disk", disk], check=True)
    try:
        store = LayoutStore(disk / "images", Limits(disk_reserve=0))
        kit = small_kit(store)
        with pytest.raises(StorageError, match=problem) as caught:
            mint_archive(store, source, "base", kit=kit, writer=container)
        assert "free some" in (caught.value.hint or "")
        assert list(store.blobs.glob(".staging-*")) == []
        assert store.tag_names() == []
    finally:
        subprocess.run(["umount", disk], check=True)


TAMPERED = {
    "a file is missing": ("tar --delete -f rootfs.tar etc/two", "/etc/two is not in the image"),
    "a file has other bytes": ("sed -i 's/xxx/xyx/' rootfs.tar", "/usr/lib/x differs from what went in"),
    "a file is too much": ("tar -rf rootfs.tar /etc/passwd", "is in the image, but was not put in"),
    "a file has another owner": (
        "echo 22 > new; tar -rf rootfs.tar --owner=7 --transform=s,new,etc/two, new",
        "/etc/two has uid 7 instead",
    ),
}
"""What is done to the tar before the tool sees it, and what the gate says."""


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tool_that_succeeds_with_a_wrong_tree(build_tools: Engine, tmp_path: Path, how: str) -> None:
    """mkfs.erofs ends with 0 and an image that is in order, but is not the tree that went in: the gate tells."""
    action, problem = TAMPERED[how]
    find = 'work=; for word; do case "$word" in *:/shed/work) work=${word%%:*};; esac; done'
    script = f'{find}\n[ -z "$work" ] || (cd $work; {action}) || exit 9\nexec {build_tools.program} "$@"\n'
    source = LAYER_SETS["plain_layers"]().image().archive(tmp_path / "archive.tar")
    store = LayoutStore(tmp_path / "images")
    with pytest.raises(ErofsError, match=problem):
        engine = Engine(program(tmp_path / "engine", script), rootless=False)
        mint_archive(store, source, "base", kit=small_kit(store), writer=ContainerWriter("dev", engine=engine))
    assert store.tag_names() == []
    assert list(store.blobs.glob(".staging-*")) == []


def test_mounting_and_fsck_miss_what_the_gate_refuses(case_of_text: Path, tmp_path: Path) -> None:
    """An image as erofs-utils 1.7.1 made them mounts and passes fsck.erofs; the file in it cannot be read."""
    forget_big_clusters(case_of_text)
    assert fsck_erofs(case_of_text).returncode == 0
    with mounted(case_of_text, tmp_path / "mount") as folder:
        assert (folder / "large").stat().st_size == 300_000
        with pytest.raises(OSError, match="Structure needs cleaning"):
            (folder / "large").read_bytes()
    with pytest.raises(ErofsError, match="big"):
        check(case_of_text)


@pytest.fixture
def case_of_text(tmp_path: Path, container: ContainerWriter) -> Path:
    """An image of mkfs.erofs, to be changed."""
    source = Image(tar(file("large", text(300_000)))).archive(tmp_path / "archive.tar")
    image = _minted(tmp_path, source, container)
    image.chmod(0o644)
    return image


def test_an_interrupt_ends_the_container(build_tools: Engine, tmp_path: Path) -> None:
    """A tool that would never end, here one that waits for its tar, does not go on behind our back."""
    os.mkfifo(tmp_path / "rootfs.tar")
    code = (
        "import sys; from pathlib import Path; from shed.images.engine import Engine\n"
        "Engine('podman', rootless=False).run('shed-build-tools:dev', ['mkfs.erofs', '--tar=f', 'x', 'rootfs.tar'], "
        "work=Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stderr=subprocess.PIPE, text=True) as process:
        while not (running := _containers(build_tools, process.pid)):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in said
    assert len(running) == 1
    assert _containers(build_tools, process.pid) == []


def _containers(engine: Engine, pid: int) -> list[str]:
    """Return the names of the containers that the process `pid` has started."""
    words = [engine.program, "ps", "--filter", f"name=shed-{pid}-", "--format", "{{.Names}}"]
    return run(words, env=environment()).stdout.decode().split()
