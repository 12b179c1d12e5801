"""Sheds that are suspended when nobody uses them: who sleeps, and who does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine
from support.vms.templates import EITHER
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]

LIMIT = 10
CRON = "while :; do i=0; while [ $i -lt 300 ]; do i=$((i+1)); done; sleep 4; done"
BUSY = "while :; do :; done"
LISTEN = "while :; do nc -l -p 7000 -e cat; done"


@pytest.fixture
def machine(small_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the image busybox, whose VMs come up either way."""
    copy_store(small_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way="warm")
    machine.way = EITHER
    yield machine
    machine.end()


def begin(machine: Machine, shed: str, script: str) -> None:
    """Have a script run in a shed, with nobody attached."""
    machine.shed("exec", shed, "--", "sh", "-c", f"setsid sh -c '{script}' >/dev/null 2>&1 </dev/null &")


def test_who_sleeps_and_who_does_not(machine: Machine) -> None:
    """A job that is short and rare lets a shed sleep; work and a connection do not, and a touch wakes it."""
    for name in ("busy", "port", "cron"):  # the last one has the least time
        machine.shed("create", name, "--image", "busybox", "--idle-suspend", f"{LIMIT}s", "-p", "7000")
    begin(machine, "busy", BUSY)
    begin(machine, "port", LISTEN)
    begin(machine, "cron", CRON)
    (port,) = (int(text.split(":")[-2]) for text in machine.show("port")["ports"])
    with socket.create_connection(("127.0.0.1", port), timeout=30):
        wait_until(lambda: machine.show("cron")["status"] == "suspended")
        assert machine.show("cron")["suspended_by"] == "idle"
        listed = machine.shed("list")
        assert ("suspended (idle)" in listed, listed.count("running")) == (True, 2)
        told = machine.shed("events", "--shed", "cron")
        assert told.index("shed.idle") < told.index("shed.suspended")
        assert machine.shed("exec", "cron", "--", "echo", "awake") == "awake\n"
    wait_until(lambda: machine.show("port")["status"] == "suspended")
    assert machine.show("busy")["status"] == "running"
