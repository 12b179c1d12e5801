"""QEMU in its jail: what it needs of the host, opened here, and nothing else; see `shed.backends.jail`."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from shed.backends.base import Machine
from shed.backends.guard import mode
from shed.backends.jail.plan import Folder, Jail
from shed.backends.qemu import command, launching, process, userns
from shed.egress.network import netns
from shed.errors import BackendError
from shed.progress import Stop

_KVM, _NULL = Path("/dev/kvm"), Path(os.devnull)
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


def start(machine: Machine, host: command.Host, prepare: Callable[[int], None], stop: Stop) -> process.Record:
    """Start the QEMU of `machine`; see `shed.backends.qemu.process.launch`.

    Raises what that raises, `NoNetworkError`, and `BackendError` when a file cannot be opened.
    """
    host = replace(host, jailed=True, program=host.program.resolve())
    statuses = userns.check_folders(machine.folders)
    more = machine.mounts is not None
    jail = Jail(
        host.program,
        files=() if host.restored else ((machine.kernel, command.KERNEL), (machine.initrd, command.INITRD)),
        folders=tuple(
            Folder(share.path, share.mode, identity=(status.st_dev, status.st_ino))
            for share, status in zip(machine.folders, statuses, strict=True)
        ),
        more=more,
        devices=(_NULL, _KVM) if host.accel == "kvm" else (_NULL,),
        user=userns.plan(machine.folders, statuses, uid=os.geteuid(), gid=os.getegid()),
    )
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(netns.make()) if host.network else None
        files = [
            stack.enter_context(_opened(disk.path, os.O_RDONLY if disk.read_only else os.O_RDWR))
            for disk in machine.disks
        ]
        memory = None
        if host.memory is not None:
            memory = stack.enter_context(_opened(host.memory, os.O_RDONLY if host.restored else _NEW))
        return launching.launch(
            machine.state_dir,
            command.build(machine, host),
            host,
            machine.name,
            jail,
            files=files,
            memory=memory,
            network=network,
            guard=mode.plan(machine.folders, more=more),
            prepare=prepare,
            stop=stop,
        )


@contextlib.contextmanager
def tried(program: Path) -> Iterator[dict[str, str]]:
    """Start QEMU in a jail, without a machine, and yield what the kernel says of it; see proc_pid_status(5).

    Raises `BackendError` when it cannot be confined.
    """
    with tempfile.TemporaryDirectory(prefix="shed-jail-") as folder:
        host = command.Host(program, "tcg", str(uuid.uuid4()))
        words = [str(program), "-uuid", host.uuid, "-machine", "none", "-nodefaults", "-display", "none", "-S"]
        record = launching.launch(Path(folder), words, host, "doctor", Jail(program, devices=(_NULL,)))
        try:
            lines = Path(f"/proc/{record.pid}/status").read_text().splitlines()
            yield {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        finally:
            process.send_signal(record, signal.SIGKILL)


def is_jailed(pid: int) -> bool:
    """Tell whether the process has a root of its own, and no capability."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    without = any(line.startswith("CapPrm:") and not line.split()[1].strip("0") for line in lines)
    return without and os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")  # noqa: PTH115  magic links


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Yield a descriptor of a file of the server's.  Raises `BackendError`."""
    try:
        file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BackendError(f"cannot open {path}: {error.strerror}", code="VM_START_FAILED") from error
    try:
        yield file
    finally:
        os.close(file)
