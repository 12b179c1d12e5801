"""Sheds that begin with what another had written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def machine(way: str, small_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the image busybox."""
    copy_store(small_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way=way)
    yield machine
    machine.end()


def test_sheds_begin_with_a_snapshot(machine: Machine, tmp_path: Path) -> None:
    """They have its files, run beside each other, and are somebody else each; one that was saved and loaded will do."""
    machine.shed("create", "dev", "--image", "busybox", "--upper-size", "1G", "--egress", "offline")
    script = "echo kept >/root/file; dd if=/dev/urandom of=/big bs=1M count=20; md5sum /big"
    digest = machine.shed("exec", "dev", "--", "sh", "-c", script)
    machine.shed("stop", "dev")
    assert machine.shed("snapshot", "create", "dev", "--comment", "the first").endswith("made dev-1 of dev\n")
    machine.shed("start", "dev")
    machine.shed("exec", "dev", "--", "sh", "-c", "rm /big; echo changed >/root/file")
    machine.shed("snapshot", "save", "dev-1", "-o", str(tmp_path / "dev-1.tar"))
    machine.shed("snapshot", "load", "copy", "-i", str(tmp_path / "dev-1.tar"))
    for name, snapshot, size in (("one", "dev-1", ()), ("two", "copy", ("--upper-size", "2G"))):
        machine.shed("create", name, "--from-snapshot", snapshot, *size)
        assert machine.shed("exec", name, "--", "cat", "/root/file") == "kept\n"
        assert machine.shed("exec", name, "--", "sh", "-c", "md5sum /big") == digest
        assert machine.show(name)["egress"] == ["offline"]
    sheds = ("dev", "one", "two")
    for script in ("hostname", "cat /etc/machine-id", "cat /sys/class/net/eth0/address"):
        assert len({machine.shed("exec", name, "--", "sh", "-c", script) for name in sheds}) == 3
    assert int(machine.shed("exec", "two", "--", "sh", "-c", "df -k / | tail -n 1").split()[1]) > 1.8 * (1 << 20)
    machine.shed("delete", "--force", "dev")
    machine.shed("snapshot", "rm", "copy")
    (listed,) = json.loads(machine.shed("snapshot", "ls", "--json"))
    assert (listed["name"], listed["source_shed"], listed["comment"]) == ("dev-1", "dev", "the first")
    assert "the first" in machine.shed("snapshot", "ls")
    assert "dev-1" in machine.shed("snapshot", "info", "dev-1")
    machine.shed("snapshot", "rm", "dev-1")
    machine.shed("restart", "one")
    assert machine.shed("exec", "one", "--", "sh", "-c", "md5sum /big") == digest
    gone = machine.try_shed("create", "three", "--from-snapshot", "dev-1")
    assert gone.returncode == 1
    assert b"there is no snapshot 'dev-1'" in gone.stderr


def test_a_shed_goes_back_and_begins_anew(machine: Machine) -> None:
    """Its files are those of the snapshot, then those of the image; it is still the same shed."""
    machine.shed("create", "dev", "--image", "busybox", "--upper-size", "1G")
    machine.shed("exec", "dev", "--", "sh", "-c", "echo good >/root/file")
    identity = machine.shed("exec", "dev", "--", "cat", "/etc/machine-id")
    machine.shed("stop", "dev")
    machine.shed("snapshot", "create", "dev", "good")
    machine.shed("start", "dev")
    machine.shed("exec", "dev", "--", "sh", "-c", "echo bad >/root/file; rm -rf /bin/ls; sync")
    assert b"takes a stopped one" in machine.try_shed("rollback", "dev").stderr
    machine.shed("stop", "dev")
    assert "rolled dev back" in machine.shed("rollback", "dev")
    machine.shed("start", "dev")
    assert machine.shed("exec", "dev", "--", "sh", "-c", "ls /root; cat /root/file") == "file\ngood\n"
    assert machine.shed("exec", "dev", "--", "cat", "/etc/machine-id") == identity
    machine.shed("create", "bad", "--from-snapshot", "dev-1")
    assert machine.shed("exec", "bad", "--", "cat", "/root/file") == "bad\n"
    machine.shed("stop", "dev")
    assert machine.try_shed("reset", "dev").returncode == 2  # nobody to ask
    machine.shed("reset", "--force", "dev")
    machine.shed("start", "dev")
    assert machine.try_shed("exec", "dev", "--", "cat", "/root/file").returncode == 1
