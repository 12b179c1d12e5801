"""Pulling: `shed image pull` beside `skopeo copy` of the same blobs; a server's memory meanwhile.

And how much less it takes to boot.

The image for the first two is 2 GB of random bytes, half of them in layers, which nobody unpacks, and half in the root.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from benchmarks.harness import command, compare, show
from benchmarks.material import debian_archive
from benchmarks.world import SHED, shed
from shed.config.paths import Paths
from shed.entries import Entry
from shed.erofs.writer import write_image
from shed.images.annotations import BootAnnotations
from shed.oci import media
from shed.oci.descriptor import Descriptor, Platform
from shed.oci.manifest import Manifest
from shed.oci.store import LayoutStore
from support.registries.docker_registry import DockerRegistry, docker_registry

_LAYER = 512 << 20
_PIECE = 1 << 20


class _Noise:
    """The contents of a file that cannot be compressed."""

    def pread(self, length: int, offset: int) -> bytes:
        """Return `length` random bytes."""
        return os.urandom(length)


def main() -> None:
    """Compare the time for the same bytes from a registry on loopback, and count bytes."""
    archive = debian_archive()
    with tempfile.TemporaryDirectory(prefix="shed-bench-", dir=archive.parent) as folder:
        scratch = Path(folder)
        os.environ["SHED_DATA_DIR"], os.environ["SHED_RUNTIME_DIR"] = str(scratch / "data"), str(scratch / "run")
        images = LayoutStore(Paths().images)
        shed("image", "bootkit", "build")
        shed("image", "build", "--from-oci-archive", archive, "-n", "debian")
        _make(images, "noise")
        with docker_registry(scratch / "registry") as registry:
            for name in ("debian", "noise"):
                shed("image", "push", name, f"{registry.address}/{name}:v1", "--local")
            shutil.rmtree(images.root)
            _throughput(registry, images.root, scratch / "layout")
            _memory(registry, images.root)
            boot, layers = (_pull(registry, "debian", *words)["fetched_bytes"] for words in ((), ("--with-layers",)))
    print(f"  Debian: boot-only {boot / 1e6:.0f} MB, with layers {(boot + layers) / 1e6:.0f} MB")


def _throughput(registry: DockerRegistry, images: Path, layout: Path) -> None:
    reference = f"{registry.address}/noise:v1"

    def empty() -> None:
        """Let every run begin with nothing, and with a disk that has nothing more to write."""
        shutil.rmtree(images, ignore_errors=True)
        shutil.rmtree(layout, ignore_errors=True)
        os.sync()

    ours = command([SHED, "image", "pull", reference, "--with-layers", "--local"], before=empty)
    copy = [
        "skopeo",
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        f"docker://{reference}",
        f"oci:{layout}:noise",
    ]
    result = compare(ours, command(copy, before=empty), runs=3)
    size = sum(path.stat().st_size for path in (layout / "blobs/sha256").iterdir())
    empty()
    show("pull", "shed", "skopeo copy", result)
    print(f"  {size / 1e6:.0f} MB: shed {size / 1e6 / result.a:.0f} MB/s, skopeo {size / 1e6 / result.b:.0f} MB/s")
    print(f"  peak memory: shed {result.peak / 1e6:.0f} MB")


def _memory(registry: DockerRegistry, images: Path) -> None:
    shed("server", "start")
    try:
        status = Path(f"/proc/{json.loads(shed('server', 'status', '--json'))['pid']}/status")
        before = _peak(status)
        size = _pull(registry, "noise", "--with-layers", local=False)["fetched_bytes"]
        print(
            f"  a server's peak memory: {before / 1e6:.0f} MB before, {_peak(status) / 1e6:.0f} MB after a pull of "
            f"{size / 1e6:.0f} MB"
        )
    finally:
        shed("server", "stop")
    shutil.rmtree(images)


def _pull(registry: DockerRegistry, name: str, *words: str, local: bool = True) -> dict[str, int]:
    """Pull an image and return what the command says of it."""
    where = ("--local",) if local else ()
    result: dict[str, int] = json.loads(
        shed("image", "pull", f"{registry.address}/{name}:v1", *words, *where, "--json")
    )
    return result


def _peak(status: Path) -> int:
    """Return the largest resident set that a process had, in bytes."""
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def _make(store: LayoutStore, name: str) -> None:
    """Put an image of random bytes into `store`."""
    layers = []
    for _ in range(2):
        digest = store.ingest(os.urandom(_PIECE) for _ in range(_LAYER // _PIECE))
        layers.append(Descriptor(media.LAYER, digest, _LAYER))
    with store.stage() as blob:
        write_image([Entry(b"noise", stat.S_IFREG | 0o644, size=2 * _LAYER, content=_Noise())], blob.file)
        root = blob.commit()
    kernel, initrd, runtime = map(store.put_bytes, (b"kernel", b"initrd", b"runtime"))
    boot = BootAnnotations(variant=name, kernel=kernel, initrd=initrd, runtime=runtime, root=root)
    rootfs = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).encode()
    data = Manifest(
        Descriptor(media.CONFIG, store.put_bytes(config), len(config)), tuple(layers), boot.encode()
    ).encode()
    store.publish(
        Descriptor(media.MANIFEST, store.put_bytes(data), len(data), platform=Platform("linux", "amd64")), name
    )
