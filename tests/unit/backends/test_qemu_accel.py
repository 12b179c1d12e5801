"""Finding out how guests run, with stand-ins for QEMU that work, hang, or fail."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shed.backends.qemu import accel
from shed.errors import UnavailableError, UsageError

WORKS = 'for last; do :; done; echo "Kernel panic - not syncing: VFS: Unable to mount root fs" > "${last#file:}"'
HANGS = "exec sleep 600"
HANGS_AND_IGNORES = "trap '' TERM INT HUP; exec sleep 600"
FAILS = "echo 'Could not access KVM kernel module' >&2; exit 1"
REBOOTS = "exit 0"


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for /dev/kvm that opens."""
    monkeypatch.delenv("SHED_ACCEL", raising=False)
    device = tmp_path / "kvm"
    device.touch()
    return device


def fake_qemu(folder: Path, body: str) -> Path:
    """Return a program that counts its starts and then does `body`."""
    program = folder / "qemu"
    program.write_text(f"#!/bin/sh\necho $$ >> {folder}/starts\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def starts(folder: Path) -> list[int]:
    """Return the process ids of the stand-ins that were started."""
    file = folder / "starts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.mark.parametrize(
    ("body", "expected"),
    [(WORKS, "kvm"), (HANGS, "tcg"), (HANGS_AND_IGNORES, "tcg"), (FAILS, "tcg"), (REBOOTS, "tcg")],
    ids=["works", "hangs", "hangs and ignores signals", "fails", "ends without a word"],
)
def test_kvm_is_tried_once_and_the_answer_kept(tmp_path: Path, device: Path, body: str, expected: str) -> None:
    """Only a guest that shows life makes KVM usable; a hung one is gone afterwards; the next question starts
    nothing.
    """
    program = fake_qemu(tmp_path, body)
    seconds = 1 if "sleep" in body else 60
    for _ in range(2):
        verdict = accel.find(tmp_path / "cache", program=program, kernel=Path("/k"), device=device, seconds=seconds)
        assert verdict.accel == expected
    (pid,) = starts(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    known = accel.known(tmp_path / "cache", device=device)
    assert known == verdict


def test_the_answer_is_for_one_boot_of_the_host(tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reboot KVM is tried again."""
    program = fake_qemu(tmp_path, WORKS)
    accel.find(tmp_path, program=program, kernel=Path("/k"), device=device)
    monkeypatch.setattr(accel, "boot_id", lambda: "the next boot")
    assert accel.known(tmp_path, device=device) is None
    accel.find(tmp_path, program=program, kernel=Path("/k"), device=device)
    assert len(starts(tmp_path)) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"boot_id": 1, "accel": "magic", "reason": ""}'])
def test_a_damaged_cache_is_no_cache(tmp_path: Path, device: Path, text: str) -> None:
    """It is asked again and written anew."""
    (tmp_path / "accel.json").write_text(text)
    assert accel.known(tmp_path, device=device) is None
    assert accel.find(tmp_path, program=fake_qemu(tmp_path, WORKS), kernel=Path("/k"), device=device).accel == "kvm"
    assert accel.known(tmp_path, device=device) is not None


def test_without_a_device_nothing_is_tried(tmp_path: Path, device: Path) -> None:
    """The reason is a sentence that names the device."""
    device.unlink()
    verdict = accel.find(tmp_path, program=fake_qemu(tmp_path, WORKS), kernel=Path("/k"), device=device)
    assert verdict.accel == "tcg"
    assert str(device) in verdict.reason
    assert not starts(tmp_path)


@pytest.mark.parametrize("asked", ["kvm", "tcg"])
def test_the_environment_decides_without_trying(
    tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """SHED_ACCEL is taken at its word."""
    monkeypatch.setenv("SHED_ACCEL", asked)
    assert accel.find(tmp_path, program=fake_qemu(tmp_path, HANGS), kernel=Path("/k"), device=device).accel == asked
    assert not starts(tmp_path)


def test_wishes_that_cannot_be_met_are_errors(tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVM without a device, and words that mean nothing."""
    monkeypatch.setenv("SHED_ACCEL", "kvm")
    device.unlink()
    with pytest.raises(UnavailableError, match=r"there is no .*kvm") as caught:
        accel.known(tmp_path, device=device)
    assert caught.value.hint
    monkeypatch.setenv("SHED_ACCEL", "turbo")
    with pytest.raises(UsageError, match="turbo"):
        accel.known(tmp_path, device=device)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", True),
        ("QEMU emulator version 8.0.4", True),
        ("QEMU emulator version 8.1.0", False),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", False),
        ("something else", True),
    ],
)
def test_an_old_qemu_gets_one_thread(tmp_path: Path, says: str, expected: bool) -> None:
    """Before 8.1, processors in threads of their own run code that another has just changed."""
    assert accel.one_thread(fake_qemu(tmp_path, f"echo '{says}'")) is expected
