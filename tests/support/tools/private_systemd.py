"""A real systemd as process 1 of namespaces of its own: services, cgroups and ``systemctl`` as on a host, and nothing
of the host's units.

It sees the host's disk, but for ``/run``, ``/var/lib`` and ``/etc/systemd``, which are its own; its cgroups are below
one of the test's.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from support.waiting import wait_until

PROGRAM = Path("/lib/systemd/systemd")
_TARGETS = ("sysinit", "basic", "multi-user", "network", "shutdown")
_CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
"""Where systemd has its own cgroups: the first where there is version 2 alone."""
_BEGIN = f"""\
set -e
for root in {" ".join(_CGROUPS)}; do
    [ ! -e $root/cgroup.procs ] || {{ mkdir -p $root/$2; echo $$ > $root/$2/cgroup.procs; }}
done
exec unshare --pid --fork --kill-child --mount --ipc --uts --mount-proc sh -c '
    set -e
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /var/lib
    mount --bind "$1/etc" /etc/systemd
    exec env -i PATH="$PATH" container=test SYSTEMD_UNIT_PATH="/etc/systemd/system:$1/units" \\
        "$2" --system --unit=basic.target
' sh "$1" "$3"
"""


class PrivateSystemd:
    """The systemd whose process has the number `pid` outside."""

    def __init__(self, pid: int, log: Path) -> None:
        self._enter = ["nsenter", "--target", str(pid), "--mount", "--pid", "--ipc", "--uts"]
        self.log = log

    def run(self, *command: str, env: Mapping[str, str] | None = None, code: int | None = 0) -> str:
        """Run a command beside it and return what it says; with `code` it must exit so."""
        done = subprocess.run(
            [*self._enter, *command],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert code in (None, done.returncode), f"{done}\n{self.log.read_text()}"
        return done.stdout + done.stderr

    def wait(self, wanted: str, *command: str) -> None:
        """Wait until a command says `wanted`."""
        what = f"{' '.join(command)} says {wanted}"
        wait_until(
            lambda: self.run(*command, code=None).strip() == wanted,
            what=what,
            seen=lambda: f"{self.run(*command, code=None)}\n{self.log.read_text()}",
        )


@contextlib.contextmanager
def private_systemd(folder: Path) -> Iterator[PrivateSystemd]:
    """Yield a systemd with its files in the new folder `folder`; when the block ends, it and all that it started are
    gone.

    Skips the test where no cgroup can be made.
    """
    if not all(os.access(root, os.W_OK) for root in _CGROUPS if Path(root, "cgroup.procs").exists()):
        pytest.skip("cgroups are read-only here")
    (folder / "etc/system").mkdir(parents=True)
    (folder / "units").mkdir()
    for name in _TARGETS:
        (folder / f"units/{name}.target").write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")
    group, log = f"shed-test-{os.getpid()}", folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", _BEGIN, "sh", folder, group, PROGRAM], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:

        def started() -> int | None:
            assert process.poll() is None, log.read_text()
            return _child(process.pid, "systemd")

        pid = wait_until(started, seen=log.read_text)
        assert pid
        systemd = PrivateSystemd(pid, log)
        systemd.wait("running", "systemctl", "is-system-running")
        yield systemd
    finally:
        process.kill()
        process.wait()
        _remove_groups(group)


def _child(parent: int, name: str) -> int | None:
    """Return the child of a process that runs the program `name`, None as long as there is none."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                return int(pid)
    return None


def _remove_groups(name: str) -> None:
    """Remove the cgroups, the innermost first, when those who were in them are gone."""
    for root in _CGROUPS:
        for path, _, _ in os.walk(f"{root}/{name}", topdown=False):
            wait_until(partial(_removed, Path(path)), what=f"{path} can be removed")


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
