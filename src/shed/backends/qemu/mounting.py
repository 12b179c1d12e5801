"""Folders that a VM gets, and loses, while it runs; see `shed.backends.interface.Mounting`.

A VM that can have them serves one more folder over 9P, in which nothing is but what is mounted there, in its jail
(`shed.backends.jail.mounter`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import marshal
import os
import re
from collections.abc import Iterator
from pathlib import Path

from shed.backends.base import Liveness, Share
from shed.backends.jail import plan
from shed.backends.qemu import command, process, userns
from shed.backends.qemu.launchers import command_line
from shed.backends.qemu.monitor import MonitorError, connected
from shed.errors import BackendError

_SECONDS = 10.0
"""For each step; it takes 50 ms."""
_TRIES, _PAUSE = 50, 0.1
"""What the VMM was about to open when its descriptors were closed is found when they are looked through again."""
_ASIDE = b"/gone/"
_OCTAL = re.compile(rb"\\([0-7]{3})")


class QemuMounting:
    """Puts folders into VMs that run, and takes them away."""

    def offers(self, state_dir: Path) -> bool:
        """Tell whether the VM was started so that it can have them."""
        record = process.load(state_dir)
        if record is None:
            return False
        try:
            words = Path(f"/proc/{record.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return any(word.startswith(command.MOUNTS_DEVICE.encode()) for word in words)

    async def add(self, state_dir: Path, share: Share) -> None:
        """Put a folder into the VM that runs there.  Raises `BackendError`, `UsageError`."""
        (status,) = userns.check_folders([share])
        target = os.fsencode(plan.inside(share.path, share.mode))
        attributes = plan.attributes(writable=share.mode != "ro")
        with _entered(state_dir) as vmm:
            await vmm.do(
                "add", [target], source=str(share.path), attributes=attributes, identity=(status.st_dev, status.st_ino)
            )

    async def remove(self, state_dir: Path, share: Share) -> None:
        """Take a folder from the VM that runs there; it has nothing open in it then.

        Raises `BackendError` when that is not certain: then the VM has to end.
        """
        target = os.fsencode(plan.inside(share.path, share.mode))
        with _entered(state_dir) as vmm:
            for number, place in vmm.mounts():
                if place == target:
                    await vmm.do("aside", [target], aside=_ASIDE + b"%d" % number)
            for _ in range(_TRIES):
                left = [(number, place) for number, place in vmm.mounts() if place.startswith(_ASIDE)]
                if not left:
                    return
                for number, _ in left:
                    await vmm.close_all(number)
                if await vmm.do("release", [place for _, place in reversed(left)]):
                    return
                await asyncio.sleep(_PAUSE)
        raise BackendError(f"the VM does not let go of {share.path}", code="STILL_SHARED")


class _Vmm:
    """A VMM whose namespaces are open here."""

    def __init__(self, record: process.Record, state_dir: Path, stack: contextlib.ExitStack) -> None:
        self._pid = record.pid
        self._state_dir = state_dir
        try:
            self._mounts = _opened(f"/proc/{record.pid}/ns/mnt", stack)
            self._user = _opened(f"/proc/{record.pid}/ns/user", stack) if os.geteuid() else -1
        except OSError as error:
            raise BackendError(f"the VM of shed {record.name} cannot be entered: {error.strerror}") from error
        if process.identify(record) is not Liveness.OURS:
            raise BackendError(f"the VM of shed {record.name} has ended", code="VM_EXITED")

    def mounts(self) -> list[tuple[int, bytes]]:
        """Return the number and the place of each mount in the jail, outer ones first."""
        try:
            lines = Path(f"/proc/{self._pid}/mountinfo").read_bytes().splitlines()
        except OSError as error:
            raise BackendError(f"the VM has ended: {error.strerror}", code="VM_EXITED") from error
        words = [line.split() for line in lines]
        return [(int(word[0]), _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), word[4])) for word in words]

    async def close_all(self, mount: int) -> None:
        """Have the guard close what the VMM has open in a mount: see `shed.backends.guard.revoking`."""
        try:
            async with asyncio.timeout(_SECONDS), connected(self._state_dir) as monitor:
                await monitor.execute("pmemsave", val=0, size=1, filename=f"/revoke/{mount}")
        except (MonitorError, TimeoutError):
            pass  # it was refused, as always; and one that does not answer may still have let go

    async def do(
        self,
        what: str,
        targets: list[bytes],
        *,
        source: str = "",
        attributes: int = 0,
        aside: bytes = b"",
        identity: tuple[int, int] | None = None,
    ) -> bool:
        """Have the mounter do something; return False when somebody has something open there.

        Raises `BackendError` for all else that goes wrong.
        """
        orders = {
            "do": what,
            "user": self._user,
            "mounts": self._mounts,
            "source": source,
            "identity": identity,
            "targets": targets,
            "attributes": attributes,
            "aside": aside,
        }
        pipe, opened = asyncio.subprocess.PIPE, [fd for fd in (self._user, self._mounts) if fd >= 0]
        done = await asyncio.create_subprocess_exec(
            *command_line(), "mount", stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=opened
        )
        try:
            async with asyncio.timeout(_SECONDS):
                said, wrong = await done.communicate(marshal.dumps(orders))
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                done.kill()
            await done.wait()
            if isinstance(error, TimeoutError):
                raise BackendError(
                    "a folder cannot be mounted in the VM: it takes too long", code="NOT_MOUNTED"
                ) from None
            raise
        number, _, name = said.decode(errors="replace").partition(" ")
        if number == str(errno.EBUSY):
            return False
        if said or done.returncode:
            reason = os.strerror(int(number)) if number.isdigit() else wrong.decode(errors="replace")[-200:]
            raise BackendError(f"a folder cannot be mounted in the VM: {reason} ({name})", code="NOT_MOUNTED")
        return True


@contextlib.contextmanager
def _entered(state_dir: Path) -> Iterator[_Vmm]:
    record = process.load(state_dir)
    if record is None:
        raise BackendError(f"no VM runs in {state_dir}", code="VM_EXITED")
    with contextlib.ExitStack() as stack:
        yield _Vmm(record, state_dir, stack)


def _opened(path: str, stack: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor
