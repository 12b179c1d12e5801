"""A server's world without real images: folders, one image called ``base``, and the fake backend."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from shed.api.making import CreateShed
from shed.config.paths import Paths
from shed.config.server import Settings
from shed.errors import NotFoundError
from shed.images.resolve import resolve_image
from shed.oci.store import LayoutStore
from shed.progress import Progress
from shed.sheds import folders
from shed.sheds.create import Resolve
from shed.sheds.manager import Manager
from support.images.runtimes import small_runtime
from support.servers.fake_backend import FakeBackend

DIGEST = "sha256:" + "ab" * 32
GIB = 1 << 30


@dataclass(frozen=True)
class FakeImage:
    """What a resolved image shows of itself."""

    digest: str
    name: str
    kernel: Path
    initrd: Path
    root: Path
    runtime: Path
    config: dict[str, Any] = field(default_factory=dict, kw_only=True)


class World:
    """Folders below `root`; `manager()` opens them as a new server would."""

    def __init__(self, root: Path, *faults: str) -> None:
        self.paths = Paths(root / "data", root / "run")
        self.backend = FakeBackend(*faults)
        self.settings = Settings(start_timeout=60, stop_timeout=60, ssh_port=0, guest_mirrors=False)
        self.blobs = root / "blobs"
        self.resolved: list[str] = []

    def prepare(self) -> World:
        """Make the image."""
        folders.prepare(self.paths)
        self.blobs.mkdir(exist_ok=True)
        for name in ("kernel", "initrd", "root"):
            (self.blobs / name).write_bytes(name.encode())
        (self.blobs / "runtime").write_bytes(small_runtime("base"))
        return self

    @property
    def resolve(self) -> Resolve:
        """Find the image ``base``, by name or digest, or what the store has when a test has put something there."""

        def resolve(reference: str) -> Any:
            self.resolved.append(reference)
            if reference not in ("base", DIGEST):
                if (self.paths.images / "index.json").exists():
                    return resolve_image(LayoutStore(self.paths.images), reference)
                raise NotFoundError(f"no image {reference!r}", code="IMAGE_NOT_FOUND", hint="shed image ls")
            return FakeImage(DIGEST, "base", *(self.blobs / name for name in ("kernel", "initrd", "root", "runtime")))

        return cast(Resolve, resolve)

    def with_settings(self, **changes: Any) -> None:
        """Change the server's settings."""
        self.settings = replace(self.settings, **changes)

    @contextlib.asynccontextmanager
    async def manager(self) -> AsyncIterator[Manager]:
        """Open a manager, as a server that starts would, and close it as one that ends would."""
        manager = Manager(self.paths, self.backend, self.resolve, self.settings)
        await manager.open()
        try:
            yield manager
        finally:
            await manager.close()

    def instance(self, name: str) -> Path:
        """Return the instance folder of a shed."""
        return self.paths.instances / name

    def traces(self) -> set[str]:
        """Return what there is of any shed on disk, locks and templates aside."""
        found = {
            str(path.relative_to(self.paths.data))
            for place in ("instances", "uppers")
            for path in (self.paths.data / place).iterdir()
        }
        return {path for path in found if not path.endswith(".lock")}

    def machines(self) -> list[int]:
        """Return the process ids of all fake VMs of this world that run, whoever started them."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if _output(pid).startswith(f"{self.paths.data}/")]

    def kill_machines(self) -> None:
        """End every fake VM of this world."""
        for pid in self.machines():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _output(pid: int) -> str:
    """Return where a process writes, or, if its keeper does that, works: a VM has that from the first moment, and its
    words not always.
    """
    try:
        output = str(Path(f"/proc/{pid}/fd/1").readlink())
        return f"{Path(f'/proc/{pid}/cwd').readlink()}/" if output.startswith("pipe:") else output
    except OSError:
        return ""


async def create(manager: Manager, name: str, **options: Any) -> dict[str, Any]:
    """Create a shed and return it."""
    return await manager.create(CreateShed(name=name, **options), Progress())
