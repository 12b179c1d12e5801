"""Other people's tools and ours on the same bytes: skopeo reads the store, umoci unpacks to the same tree, their
archives are minted.
"""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.erofs.reader import Image as ErofsImage
from shed.images.mint import mint_archive
from shed.oci.digest import Digest
from shed.oci.store import LayoutStore
from support.images.minted import small_kit
from support.layers.tars import Image, Item, device, file, folder, hardlink, symlink, tar

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
LOWER: list[Item] = [
    folder("./", mode=0o755, mtime=1),
    folder("usr/lib", mtime=1_600_000_000),
    symlink("lib", "usr/lib"),
    file("usr/lib/a", os.urandom(200_000), mtime=1_600_000_001),
    file("usr/lib/gone", b"x"),
    file("opaque/old", b"x"),
    file("replaced/child", b"x"),
    file("linked", b"linked", mode=0o4755, uid=5, gid=6),
    hardlink("other-name", "linked"),
    device("dev/null", b"3", 1, 3),
    device("pipe", b"6"),
    file("zeros", bytes(1 << 20)),
    file("n" * 200, b"long name"),
]
UPPER: list[Item] = [
    file("lib/b", b"through a symlink", mtime=1_600_000_002),
    file("usr/lib/.wh.gone"),
    file("opaque/.wh..wh..opq"),
    file("opaque/new", b"y"),
    file("replaced", b"a file now"),
    file(".wh.linked"),
    hardlink("third-name", "other-name"),
    file("dir/nested/file", b"z", uid=1000, gid=1000),
    file(
        "ping", b"capable", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1")}
    ),
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two layers with most of what layers can do."""
    image = Image(tar(*LOWER), tar(*UPPER))
    image.seal(annotations={"org.opencontainers.image.ref.name": "two"})
    return image.archive(tmp_path_factory.mktemp("image") / "two.tar")


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """An empty store."""
    return LayoutStore(tmp_path / "images")


def skopeo(*words: str | Path) -> str:
    """Run skopeo and return what it prints."""
    return subprocess.run(["skopeo", *map(str, words)], check=True, capture_output=True, text=True).stdout


def mint(store: LayoutStore, source: Path, name: str = "two") -> tuple[Digest, Digest]:
    """Mint and return the digests of manifest and root."""
    result = mint_archive(store, source, name, kit=small_kit(store), source_ref="example.org/two:1")
    return result.manifest_digest, result.root_digest


def test_skopeo_inspects_the_store(store: LayoutStore, archive: Path) -> None:
    """The store is a layout: an image is found by its tag, and so is another one beside it."""
    digest, root = mint(store, archive)
    mint(store, archive, "second")
    about = json.loads(skopeo("inspect", f"oci:{store.root}:two"))
    assert about["Digest"] == digest
    assert len(about["Layers"]) == 2
    raw = skopeo("inspect", "--raw", f"oci:{store.root}:two")
    assert json.loads(raw)["annotations"]["io.shed.rootfs.erofs.digest"] == root
    assert json.loads(skopeo("inspect", f"oci:{store.root}:second"))["Digest"] != digest


def test_copies_by_skopeo_are_minted_to_the_same_root(store: LayoutStore, archive: Path, tmp_path: Path) -> None:
    """Out of the store with skopeo, as archive and as folder, and minted again: the same root, and the same layers."""
    digest, root = mint(store, archive)
    skopeo("copy", f"oci:{store.root}:two", f"oci-archive:{tmp_path}/copy.tar:two")
    skopeo("copy", f"oci:{store.root}:two", f"oci:{tmp_path}/layout:two")
    for number, source in enumerate((tmp_path / "copy.tar", tmp_path / "layout")):
        other = LayoutStore(tmp_path / f"other{number}")
        assert mint(other, source) == (digest, root)


def test_docker_archives_by_skopeo(store: LayoutStore, archive: Path, tmp_path: Path) -> None:
    """A docker-archive gives the same root."""
    _, root = mint(store, archive)
    skopeo("copy", f"oci-archive:{archive}", f"docker-archive:{tmp_path}/docker.tar:example.org/two:1")
    assert mint(store, tmp_path / "docker.tar")[1] == root


@pytest.mark.parametrize("how", ["zstd", "gzip"])
def test_recompressed_layers(store: LayoutStore, archive: Path, tmp_path: Path, how: str) -> None:
    """However the layers are compressed, the root is the same."""
    _, root = mint(store, archive)
    skopeo("copy", "--dest-compress-format", how, "--dest-compress", f"oci-archive:{archive}", f"dir:{tmp_path}/dir")
    skopeo("copy", f"dir:{tmp_path}/dir", f"oci-archive:{tmp_path}/{how}.tar")
    manifest, again = mint(store, tmp_path / f"{how}.tar")
    assert again == root
    assert all(layer.media_type.endswith(how) for layer in store.read_manifest(manifest).layers)


def xattrs(path: Path) -> dict[bytes, bytes]:
    """Return the extended attributes of what is at `path`, a link itself if it is one."""
    names = os.listxattr(path, follow_symlinks=False)
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}


@pytest.mark.root
def test_umoci_unpacks_the_same_tree(store: LayoutStore, archive: Path, tmp_path: Path) -> None:
    """An independent unpacker of layers shows the same names, attributes, links and bytes."""
    if os.geteuid():
        pytest.skip("needs root")
    _, root = mint(store, archive)
    subprocess.run(
        ["umoci", "unpack", "--image", f"{store.root}:two", tmp_path / "bundle"], check=True, capture_output=True
    )
    theirs = tmp_path / "bundle/rootfs"
    with ErofsImage.open(store.blob_path(root)) as image:
        ours = dict(image.walk())
        names = {b""} | {os.fsencode(path.relative_to(theirs)) for path in theirs.rglob("*")}
        assert set(ours) == names
        inodes: dict[int, int] = {}
        for name, inode in ours.items():
            path = theirs / os.fsdecode(name)
            status = path.lstat()
            assert (inode.mode, inode.uid, inode.gid) == (status.st_mode, status.st_uid, status.st_gid), name
            assert inodes.setdefault(inode.nid, status.st_ino) == status.st_ino, name
            assert image.xattrs(inode) == xattrs(path), name
            if stat.S_ISREG(inode.mode):
                assert (inode.mtime, b"".join(image.chunks(inode))) == (int(status.st_mtime), path.read_bytes()), name
            elif stat.S_ISLNK(inode.mode):
                assert image.readlink(inode) == os.fsencode(path.readlink()), name


@pytest.mark.root
@pytest.mark.slow
def test_buildah_image_with_layers(store: LayoutStore, tmp_path: Path, buildah: Callable[..., str]) -> None:
    """An image that buildah made in several steps, with whiteouts, as archive and in Docker's format."""
    busybox = shutil.which("busybox")
    assert busybox, "scripts/setup --tests installs busybox-static"
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(busybox, context / "busybox")
    (context / "Containerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV PATH=/bin\n"
        "RUN busybox mkdir -p /d/e && echo one > /d/one && echo two > /d/e/two && busybox ln /d/one /d/hard\n"
        "RUN busybox rm -r /d/e && busybox rm /d/one && busybox chmod 4711 /d/hard && busybox ln -s d /s && busybox "
        "mknod /fifo p\n"
    )
    for kind in ("oci", "docker"):
        buildah(
            "bud", "--layers", "--isolation", "chroot", "--format", kind, "-t", f"localhost/shed-test-{kind}", context
        )
        buildah("push", f"localhost/shed-test-{kind}", f"oci-archive:{tmp_path}/{kind}.tar")
        _, root = mint(store, tmp_path / f"{kind}.tar", kind)
        with ErofsImage.open(store.blob_path(root)) as image:
            paths = dict(image.walk())
            assert {b"d", b"d/hard", b"s", b"fifo", b"bin/busybox"} <= set(paths)
            assert not {b"d/one", b"d/e", b"d/e/two"} & set(paths)
            assert paths[b"d/hard"].mode == stat.S_IFREG | 0o4711
            assert image.read(paths[b"d/hard"], 0, 10) == b"one\n"


@pytest.fixture
def buildah(tmp_path: Path) -> Callable[..., str]:
    """Buildah with a storage of its own."""
    if os.geteuid():
        pytest.skip("needs root")

    def call(command: str, *words: str | Path) -> str:
        options = ["--storage-driver", "vfs", "--root", tmp_path / "storage", "--runroot", tmp_path / "run"]
        done = subprocess.run(
            ["buildah", *map(str, options), command, *map(str, words)], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call
