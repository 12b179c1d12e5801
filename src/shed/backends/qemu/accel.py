"""How guests run here: with KVM, or emulated (TCG).

``/dev/kvm`` can open and still hang every guest (nested virtualisation that is half there), so its word is not enough:
once per boot of this host the kernel is started with KVM and must get as far as it can alone, which takes well under a
second where KVM works.  Without an initrd and a root disk it ends in a panic; with ``panic=-1`` and ``-no-reboot`` the
panic ends QEMU.  Success is that message on the console and QEMU gone; a guest that hangs is killed after
`PROBE_SECONDS`, by ``timeout``, even if we are killed ourselves.

QEMU before 8.1 can run code that another of the guest's processors has just changed.  The kernel patches itself while
it runs, most of all during boot, so about one emulated boot in a hundred with two processors ended in ``Oops: int3``;
there they have to share one thread.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from shed.backends.qemu import command
from shed.backends.qemu.process import boot_id
from shed.errors import UnavailableError, UsageError
from shed.fsutil import atomic_write, locked, private_folder
from shed.run import run

log = logging.getLogger(__name__)
PROBE_SECONDS = 5
KVM_DEVICE = Path("/dev/kvm")
_SIGN_OF_LIFE = b"Kernel panic - not syncing: VFS"
_CACHE = "accel.json"
_VERSION = re.compile(r"version (\d+)\.(\d+)")
_SOUND_THREADS = (8, 1)
"""The QEMU that locks pages before it translates them: commit deba78709ae8 there."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What guests run with, ``kvm`` or ``tcg``, and why, as a sentence for people."""

    accel: str
    reason: str
    remedy: str = ""
    """What would make them faster; empty for nothing."""


def wanted() -> str:
    """Return what ``SHED_ACCEL`` asks for: ``kvm``, ``tcg``, or nothing.  Raises `UsageError` for anything else."""
    value = os.environ.get("SHED_ACCEL", "")
    if value not in {"", "kvm", "tcg"}:
        raise UsageError(f"SHED_ACCEL is {value!r}", hint="set it to kvm or tcg, or unset it to have it found out")
    return value


def known(cache_dir: Path, *, device: Path = KVM_DEVICE) -> Verdict | None:
    """Return the verdict if it is known without starting a guest, else None.

    It is when it was asked for, when there is no usable device, or when it is cached since this host booted.
    """
    asked = wanted()
    trouble = _trouble(device)
    if asked == "kvm" and trouble:
        raise UnavailableError(
            f"SHED_ACCEL asks for KVM, but {trouble}",
            code="KVM_UNAVAILABLE",
            hint=f"unset SHED_ACCEL, or give your user access to {device}: `sudo usermod -aG kvm $USER`, then log in "
            "again",
        )
    if asked:
        return Verdict(asked, f"asked for with SHED_ACCEL={asked}")
    if trouble:
        return Verdict("tcg", f"guests are emulated, which is several times slower: {trouble}", _remedy(device))
    return _cached(cache_dir / _CACHE)


def find(
    cache_dir: Path, *, program: Path, kernel: Path, device: Path = KVM_DEVICE, seconds: int = PROBE_SECONDS
) -> Verdict:
    """Return the verdict, trying KVM with `kernel` when that has not been done since this host's boot.

    Blocks for that time.
    """
    verdict = known(cache_dir, device=device)
    if verdict is not None:
        return verdict
    private_folder(cache_dir)
    with locked(cache_dir / f".{_CACHE}.lock"):
        verdict = _cached(cache_dir / _CACHE)  # somebody else may have tried while we waited
        if verdict is None:
            log.info("trying KVM with %s, once per boot of this host", kernel)
            if boots(program, kernel, "kvm", seconds=seconds):
                verdict = Verdict("kvm", f"{device} works")
            else:
                verdict = Verdict(
                    "tcg",
                    f"guests are emulated, which is several times slower: {device} opens, but a guest hangs with it",
                    "in a virtual machine, ask for nested virtualization that works; else see: sudo dmesg",
                )
            log.info("%s", verdict.reason)
            atomic_write(cache_dir / _CACHE, json.dumps({"boot_id": boot_id(), **asdict(verdict)}) + "\n")
    return verdict


def boots(program: Path, kernel: Path, accel: str, *, seconds: int) -> bool:
    """Start `kernel` alone and say whether it got to where it misses its root file system, within `seconds`."""
    with tempfile.TemporaryDirectory(prefix="shed-kvm-") as folder:
        console = Path(folder) / "console"
        qemu: list[str | Path] = [
            program, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", *command.board(accel),
            "-m", "256M", "-kernel", kernel, "-append", command.kernel_command_line(accel, None),
            "-serial", f"file:{console}",
        ]  # fmt: skip
        done = run(["timeout", "--foreground", "--signal=KILL", str(seconds), *qemu], check=False, timeout=seconds + 10)
        alive = console.exists() and _SIGN_OF_LIFE in console.read_bytes()
        if not alive:
            log.info(
                "the guest did not come up with %s (exit status %d): %s",
                accel,
                done.returncode,
                done.stderr.decode(errors="replace"),
            )
        return alive and done.returncode == 0


def one_thread(program: Path) -> bool:
    """Return whether the processors that this QEMU emulates must share one thread.

    They must when it is older than 8.1, or does not tell its version.
    """
    found = _VERSION.search(version(program))
    return found is None or (int(found[1]), int(found[2])) < _SOUND_THREADS


def version(program: Path) -> str:
    """Return which QEMU `program` is: what it says of itself, and which file it is."""
    return f"{release(program)} {'.'.join(map(str, _file(program)))}"


def release(program: Path) -> str:
    """Return what `program` says of itself: its version, and that of the package that it came in."""
    return _release(program, *_file(program))


def _file(program: Path) -> tuple[int, int, int]:
    status = program.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=8)
def _release(program: Path, *file: int) -> str:
    return run([program, "--version"], check=False, timeout=10).stdout.decode(errors="replace").partition("\n")[0]


def _remedy(device: Path) -> str:
    """Return what makes `device` usable, which is not now."""
    if device.exists():
        return "sudo usermod -aG kvm $USER, then log in again"
    return (
        "switch virtualization on in the firmware, or nested virtualization in the machine around this one, then: "
        "sudo modprobe kvm_intel (or kvm_amd)"
    )


def _trouble(device: Path) -> str:
    """Return why `device` cannot be used, or nothing."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {device}"
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}"
    return ""


def _cached(path: Path) -> Verdict | None:
    try:
        found = json.loads(path.read_text())
        if found["boot_id"] == boot_id() and found["accel"] in {"kvm", "tcg"}:
            return Verdict(found["accel"], str(found["reason"]), str(found.get("remedy", "")))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache is as good as a damaged one
    return None
