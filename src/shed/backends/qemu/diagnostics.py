"""What the QEMU backend needs of this host, examined by trying it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from shed.backends.qemu import accel, command, confined, groups, process
from shed.backends.qemu import templates as saved
from shed.backends.qemu.budget import Budget
from shed.backends.qemu.machines import find_program
from shed.checks import Result, Status, user
from shed.config.paths import Paths
from shed.errors import ShedError
from shed.linux.bpf import NOTIFY
from shed.run import run

GUEST_SECONDS = 60
"""A guest that is emulated on a busy machine takes a few."""
_VERSION_SECONDS = 20
_GREEDY = "import sys; sys.stdin.read(1); eaten = [b'x' * (1 << 20) for _ in range(256)]"
_TRIED = Budget(memory_bytes=64 << 20, swap_bytes=0, tasks=16, cpu_percent=100)
_GREEDY_SECONDS = 60.0
_SECCOMP, _GET_ACTION_AVAILABLE = 317, 2
"""seccomp(2), x86-64."""


class QemuDiagnostics:
    """Rows of ``shed-server doctor``; see `shed.backends.interface.Diagnostics`."""

    def __init__(self, paths: Paths, program: str, control_groups: str) -> None:
        self._paths = paths
        self._program = program
        self._control_groups = control_groups

    def program(self) -> Iterator[Result]:
        """QEMU is here, and can be started."""
        if platform.machine() != "x86_64":
            yield Result("vmm", Status.FAIL, f"x86-64 guests run on x86-64 hosts; this is {platform.machine()}")
            return
        program = find_program(self._program)
        version = run([program, "--version"], timeout=_VERSION_SECONDS).stdout.decode(errors="replace")
        yield Result("vmm", Status.PASS, f"{program}: {(version.splitlines() or ['no version'])[0]}")

    def way(self) -> str:
        """How guests run, a sentence; empty while it is not known."""
        verdict = accel.known(self._paths.data)
        if verdict is None:
            return ""
        return f"{verdict.accel}: {verdict.reason}" + (f"; {verdict.remedy}" if verdict.remedy else "")

    def jail(self) -> Iterator[Result]:
        """QEMU can be started in its jail, which has all its walls."""
        from shed.linux.kernel import landlock_version  # noqa: PLC0415  a server does without

        if shutil.which(self._program) is None:
            return  # its own row says so
        program = find_program(self._program).resolve()
        version = landlock_version()
        with confined.tried(program) as status:
            user = status["Uid"].split()[0]
            if status["CapPrm"].strip("0") or status["CapBnd"].strip("0") or status["NoNewPrivs"] != "1":
                yield Result("jail", Status.FAIL, f"QEMU kept rights in its jail: {status}", "please report this")
                return
        walls = f"QEMU runs as user {user}, without capabilities, in namespaces of its own, with a list of system calls"
        if version:
            yield Result("jail", Status.PASS, f"{walls}, and Landlock (version {version})")
        else:
            yield Result(
                "jail",
                Status.WARN,
                f"{walls}; this kernel has no Landlock, which would be a second wall around files",
                "add landlock to lsm= on the kernel's command line",
            )

    def is_jailed(self, state_dir: Path) -> bool:
        """Tell whether the VM in `state_dir` is in a jail; one that an earlier version of shed started is not."""
        record = process.load(state_dir)
        return record is None or confined.is_jailed(record.pid)

    def acceleration(self, kernel: Path | None) -> Iterator[Result]:
        """How guests run, found by starting one; emulation works, and is slow."""
        verdict = accel.known(self._paths.data)
        if verdict is None and kernel is not None:
            verdict = accel.find(self._paths.data, program=find_program(self._program), kernel=kernel)
        if verdict is None:
            yield Result(
                "acceleration",
                Status.WARN,
                f"{accel.KVM_DEVICE} opens; with no kernel in the store, no guest can be tried",
            )
            return
        slow = verdict.accel == "tcg"
        detail = f"{verdict.accel}: {verdict.reason}"
        yield Result("acceleration", Status.WARN if slow else Status.PASS, detail, verdict.remedy)
        if kernel is None:
            yield Result(
                "guest", Status.WARN, "no kernel in the store, so no guest was started", "build or pull an image"
            )
            return
        start = time.monotonic()
        if accel.boots(find_program(self._program), kernel, verdict.accel, seconds=GUEST_SECONDS):
            took = time.monotonic() - start
            yield Result(
                "guest",
                Status.PASS,
                f"a guest started with {verdict.accel} in {took:.1f} s, to where it misses its root",
            )
        else:
            hint = "build the boot kit again: shed image bootkit build"
            yield Result(
                "guest", Status.FAIL, f"a guest does not start with {verdict.accel} and the kernel {kernel}", hint
            )

    def control_groups(self) -> Iterator[Result]:
        """Each VM gets a control group, which bounds its memory and its processor time."""
        wanted = self._control_groups
        found = groups.find()
        if wanted == "never":
            detail = "limits.control_groups is never: a VM's memory and processor time are not bounded on the host"
            yield Result("control groups", Status.WARN, detail)
        elif found.way is groups.Way.NONE:
            status = Status.FAIL if wanted == "require" else Status.WARN
            yield Result("control groups", status, f"VMs have none: {found.reason}", found.hint)
        else:
            yield Result("control groups", Status.PASS, f"each VM gets one, by {found.way}")

    def memory_bound(self) -> Iterator[Result]:
        """A process in a group such as VMs have is ended when it takes more memory than it may."""
        with subprocess.Popen([sys.executable, "-I", "-S", "-c", _GREEDY], stdin=subprocess.PIPE) as greedy:
            try:
                groups.find().place(greedy.pid, f"doctor-{greedy.pid}", _TRIED)
                greedy.communicate(b"g", timeout=_GREEDY_SECONDS)
            except ShedError as error:
                yield Result.of("vm bounds", error, Status.FAIL if self._control_groups == "require" else Status.WARN)
                return
            finally:
                greedy.kill()
        if greedy.returncode == -signal.SIGKILL:
            yield Result(
                "vm bounds", Status.PASS, f"a process that took more than its {_TRIED.memory_bytes >> 20} MiB was ended"
            )
        else:
            detail = f"a process took 256 MiB in a group of {_TRIED.memory_bytes >> 20} MiB"
            yield Result(
                "vm bounds", Status.FAIL, detail, "look at the kernel's log; this host's groups do not bound memory"
            )

    def shared_folders(self) -> Iterator[Result]:
        """The kernel can ask a supervisor about the names that a guest makes in a shared folder."""
        import ctypes  # noqa: PLC0415  a server does without

        action = ctypes.c_uint32(NOTIFY)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(_SECCOMP, _GET_ACTION_AVAILABLE, 0, ctypes.byref(action)):
            why = os.strerror(ctypes.get_errno())
            hint = "use Linux 5.9 or newer with seccomp, or share folders with :ro"
            yield Result(
                "shared folders",
                Status.WARN,
                f"sheds with a writable folder do not start: no seccomp user notification: {why}",
                hint,
            )
        else:
            yield Result("shared folders", Status.PASS, "the kernel asks about each name that a guest makes in one")

    def console_is_bounded(self, state_dir: Path) -> bool:
        """Tell whether the VM in `state_dir` has a keeper; one that an earlier version of shed started has none."""
        return not (state_dir / process.RECORD).exists() or _is_kept(state_dir / command.CONSOLE)

    def templates(self) -> Iterator[Result]:
        """What VMs are restored from is what was saved, and can still be used."""
        found = sorted(self._paths.templates.glob("vm-*"))
        program = shutil.which(self._program)
        for path in found:
            yield from _template(path, Path(program) if program else None)
        for path in sorted(self._paths.templates.glob("*vm-*")):
            with contextlib.suppress(FileNotFoundError):  # one that was being made
                owner = path.lstat().st_uid
                if owner != os.geteuid():
                    detail = f"it belongs to {user(owner)}, so the server can neither use nor replace it"
                    yield Result(f"template {path.name}", Status.WARN, detail, f"sudo rm -rf {shlex.quote(str(path))}")
        detail = f"{len(found)} looked at" if found else "there are none yet: one is made after the first start"
        yield Result("templates", Status.PASS, detail)


def _template(path: Path, program: Path | None) -> Iterator[Result]:
    try:
        saved.check(path, thoroughly=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = f"remove it, and it is made again when it is needed: rm -rf {shlex.quote(str(path))}"
        yield Result(f"template {path.name}", Status.WARN, f"it is damaged: {error}", hint)
    else:
        if saved.runtime_of(path, program) is None:
            yield Result(
                f"template {path.name}",
                Status.WARN,
                "it was made by another QEMU or shed, and is not used",
                "shed system prune",
            )


def _is_kept(console: Path) -> bool:
    """Tell whether somebody holds the lock of a console's log, as its keeper does for as long as the VM may write."""
    try:
        file = os.open(console, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # nothing that could grow
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
