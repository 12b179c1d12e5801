"""The real server with the fake backend, as a process: ``python -m support.servers.fake_server FOLDER [FAULT...]``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from shed.client.address import Address
from shed.client.transport import NotRunningError, connect
from shed.server.app import Server
from shed.server.run import serve
from shed.sheds.manager import Manager
from support.servers.contract import install
from support.servers.world import World
from support.waiting import wait_until


@contextlib.contextmanager
def fake_server(root: Path, *faults: str) -> Iterator[dict[str, str]]:
    """Run the server below `root` while the block lasts; yield the environment in which `shed` takes it for the local
    one.

    Fake VMs that are left are ended.
    """
    env = {**os.environ, "SHED_DATA_DIR": str(root / "data"), "SHED_RUNTIME_DIR": str(root / "run"), "HOME": str(root)}
    env.pop("XDG_CACHE_HOME", None)
    env.pop("SHED_SERVER", None)
    env.setdefault("TMUX_TMPDIR", str(root))  # not that of whoever runs the tests
    tests = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "support.servers.fake_server", str(root), *faults]
    with (
        (root / "server.log").open("wb") as log,
        subprocess.Popen(command, env={**env, "PYTHONPATH": tests}, stderr=log) as process,
    ):
        try:

            def up() -> bool:
                assert process.poll() is None, (root / "server.log").read_text()
                return listens(root / "run/shed.sock")

            wait_until(up, what="the server listens", seen=(root / "server.log").read_text)
            yield env
        finally:
            process.terminate()
            process.wait(60)
            end_machines(root)


def listens(path: Path) -> bool:
    """Say whether somebody listens at the socket `path`: it is there a moment earlier."""
    try:
        connect(Address(path=str(path))).close()
    except NotRunningError:
        return False
    return True


def end_machines(root: Path) -> None:
    """End the fake VMs of the sheds below `root`."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "fd/1").readlink().is_relative_to(root / "data/instances"):
                os.kill(int(entry.name), signal.SIGKILL)


def main() -> None:
    """Serve until SIGTERM."""
    install()
    world = World(Path(sys.argv[1]), *sys.argv[2:]).prepare()
    serve(Server(world.paths, world.settings, Manager(world.paths, world.backend, world.resolve, world.settings)))


if __name__ == "__main__":
    main()
