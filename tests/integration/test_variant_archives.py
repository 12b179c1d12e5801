"""The published images as archives, made from real packages: layers are shared, and made again they are the same."""

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from shed.images.recipe import find_recipe, open_parent
from shed.oci.archive import open_archive
from shed.oci.selection import SelectedImage, select_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def image(archive: Path, scratch: Path) -> SelectedImage:
    """Return the image in an archive."""
    with open_archive(archive, scratch=scratch) as opened:
        return select_image(opened)


def test_each_variant_has_the_layers_of_the_one_before(variant_archives: dict[str, Path], tmp_path: Path) -> None:
    """Descriptor for descriptor, so that a registry, and a store, keep each layer once; and one layer more."""
    base, extensions, full = (image(variant_archives[name], tmp_path) for name in ("base", "extensions", "full"))
    for lower, upper in ((base, extensions), (extensions, full)):
        assert upper.manifest.layers[:-1] == lower.manifest.layers
        assert upper.config.diff_ids[:-1] == lower.config.diff_ids
        assert len(upper.config.raw["history"]) == len(upper.manifest.layers)
    assert full.config.settings["User"] == "shed"
    assert full.config.settings["Labels"]["org.opencontainers.image.title"] == "shed full"


def test_the_same_packages_give_the_same_bytes(variant_archives: dict[str, Path], tmp_path: Path) -> None:
    """Made again, extensions is equal, whatever time has passed."""
    again = tmp_path / "again.oci.tar"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "shed.cli.main",
            "image",
            "make",
            "extensions",
            "--output",
            again,
            "--on",
            variant_archives["base"],
        ],
        check=True,
    )
    assert image(again, tmp_path).digest == image(variant_archives["extensions"], tmp_path).digest


@pytest.mark.root
def test_other_tools_unpack_the_same(variant_archives: dict[str, Path], tmp_path: Path) -> None:
    """umoci applies the layers one by one: nothing that was taken away is there, and links, owners and modes are
    right.
    """
    subprocess.run(
        ["skopeo", "copy", "-q", f"oci-archive:{variant_archives['extensions']}", f"oci:{tmp_path}/layout:x"],
        check=True,
    )
    subprocess.run(["umoci", "raw", "unpack", "--image", f"{tmp_path}/layout:x", tmp_path / "root"], check=True)
    root = tmp_path / "root"
    assert not list(root.rglob(".wh.*"))
    assert (root / "sbin/init").resolve().name == "systemd"
    assert (root / "usr/bin/sudo").stat().st_mode & 0o7777 == 0o4755
    assert not list(root.glob("etc/ssh/ssh_host_*"))
    assert (root / "etc/machine-id").read_bytes() == b""
    assert (root / "etc/systemd/system/systemd-firstboot.service").readlink() == Path("/dev/null")
    assert (root / "etc/shed-extensions.d").is_dir()
    assert (root / "workspace").stat().st_uid == 1000


@pytest.mark.root
def test_a_builder_makes_the_same_of_the_containerfile(variant_archives: dict[str, Path], tmp_path: Path) -> None:
    """The same packages, and units enabled and masked alike; who runs it, and where, is inherited."""
    made = tmp_path / "made.oci.tar"
    buildah: list[str | Path] = [
        "buildah",
        "--root",
        tmp_path / "storage",
        "--runroot",
        tmp_path / "run",
        "--storage-driver",
        "overlay",
    ]
    build = ["bud", "-q", "--isolation", "chroot", "--identity-label=false", "-t", "x", "-f", "Containerfile"]
    base = ["--build-arg", f"BASE=oci-archive:{variant_archives['base']}"]
    try:
        subprocess.run([*buildah, *build, *base, "."], check=True, cwd=find_recipe("extensions"))
        subprocess.run([*buildah, "push", "-q", "x", f"oci-archive:{made}"], check=True)
    finally:
        subprocess.run([*buildah, "rmi", "--all", "--force"], check=False, capture_output=True)
        subprocess.run(["umount", tmp_path / "storage/overlay"], check=False, capture_output=True)
    assert _facts(made, tmp_path) == _facts(variant_archives["extensions"], tmp_path)


def _facts(archive: Path, scratch: Path) -> dict[str, object]:
    with open_parent(archive, scratch=scratch) as opened:
        settings = opened.chosen.config.settings
        return {
            "packages": {entry.path for entry in opened.entries if fnmatch(entry.path, b"var/lib/dpkg/info/*.list")},
            "units": {
                entry.path: entry.target for entry in opened.entries if entry.path.startswith(b"etc/systemd/system/")
            },
            "host keys": [entry.path for entry in opened.entries if entry.path.startswith(b"etc/ssh/ssh_host_")],
            **{key: settings[key] for key in ("User", "WorkingDir", "Cmd", "Env", "Labels")},
        }
