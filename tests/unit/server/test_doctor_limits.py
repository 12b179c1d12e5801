"""The checks of what bounds the VMs, and of what the host has left: on hosts that have it, and on those that do not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from shed.backends.qemu import groups
from shed.backends.qemu.budget import Budget
from shed.backends.qemu.groups import Groups, Way
from shed.checks import Status
from shed.config.paths import Paths
from shed.server.doctor import limits
from shed.server.doctor.host import Host
from shed.sheds import folders, headroom

NONE = Groups(Way.NONE, "there are none here", "get some")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host whose configuration is a file of the test's."""
    (tmp_path / "server.yaml").write_text("")
    paths = Paths(tmp_path / "data", tmp_path / "run")
    folders.prepare(paths)
    return Host(paths, tmp_path / "server.yaml")


def configure(host: Host, line: str) -> None:
    assert host.config is not None
    host.config.write_text(f"limits: {{{line}}}\n")


def test_control_groups_are_there_or_it_is_said_why_not(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning where VMs run without, a failure where none may."""
    monkeypatch.setattr(groups, "find", lambda: Groups(Way.USER))
    (row,) = limits.control_groups(host)
    assert (row.status, "the user's systemd" in row.detail) == (Status.PASS, True)
    monkeypatch.setattr(groups, "find", lambda: NONE)
    for line, status in (
        ("", Status.WARN),
        ("control_groups: require", Status.FAIL),
        ("control_groups: never", Status.WARN),
    ):
        configure(host, line)
        (row,) = limits.control_groups(host)
        assert row.status is status


def test_memory_and_pressure_are_told(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where one more shed would be refused, that is a warning; a kernel that does not count pressure, too."""
    (row,) = limits.memory(host)
    assert row.detail.startswith("0 sheds run; VMs were promised 0 bytes")
    configure(host, "memory_reserve: 16T")
    (row,) = limits.memory(host)
    assert (row.status, "(limits.memory_reserve)" in row.detail) == (Status.WARN, True)
    monkeypatch.setattr(headroom, "PROC", tmp_path)
    (row,) = limits.pressure(host)
    assert row.status is Status.WARN
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure/memory").write_text(
        "some avg10=3.00 avg60=0 avg300=0 total=1\nfull avg10=2.00 avg60=0 avg300=0 total=1\n"
    )
    (row,) = limits.pressure(host)
    assert (row.status, row.detail) == (Status.PASS, "memory 2 %")


class Ending(Groups):
    """Groups whose kernel ends who is put into one."""

    def place(self, pid: int, name: str, budget: Budget) -> None:
        os.kill(pid, signal.SIGKILL)


class Idle(Groups):
    """Groups that bound nothing."""

    def place(self, pid: int, name: str, budget: Budget) -> None:
        pass


def test_bounds_are_tried_with_a_process_that_takes_too_much(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to be ended; a group that lets it go on is a failure, and that there are no groups is said."""
    for found, status in ((Ending(Way.FILES), Status.PASS), (Idle(Way.FILES), Status.FAIL), (NONE, Status.WARN)):
        monkeypatch.setattr(groups, "find", lambda found=found: found)
        (row,) = limits.bounds(host)
        assert row.status is status
