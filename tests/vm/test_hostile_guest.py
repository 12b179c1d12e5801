"""What the root of one guest can do to the server and to other sheds by its link: very little, and everybody sees which
guest it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.guests import hostile
from support.images.kit import copy_store
from support.vms.machine import Machine
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def machine(way: str, small_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with two sheds, ``bad`` and ``good``."""
    copy_store(small_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way=way)
    for name in ("bad", "good"):
        machine.shed("create", name, "--image", "busybox")
    yield machine
    machine.end()


@pytest.mark.parametrize("flood", [hostile.JUNK, hostile.EMPTY], ids=["junk", "empty"])
def test_a_guest_that_floods_its_link(machine: Machine, flood: bytes) -> None:
    """Its link is dropped, `shed list` says why and what to do, the log stays short, and the other shed works on."""
    log = machine.data / "logs/server.log"
    before = log.stat().st_size
    hostile.take_port(machine, "bad", flood)
    wait_until(lambda: "detail" in machine.show("bad"))
    assert machine.shed("exec", "good", "--", "echo", "fine") == "fine\n"
    detail = machine.show("bad")["detail"]
    assert detail.startswith("its link was dropped: the ")
    assert detail.endswith("`shed stop bad` ends it")
    assert "detail" not in machine.show("good")
    for _ in range(3):  # a stream that is open when the link is dropped is only reset

        def refused() -> bool:
            done = machine.try_shed("--json", "exec", "bad", "--", "true")
            code = json.loads(done.stderr.splitlines()[-1])["error"]["code"]
            assert code in {"LINK_ABUSED", "STREAM_RESET"}
            return bool(code == "LINK_ABUSED")

        wait_until(refused)
    assert log.stat().st_size - before < 10_000
    machine.shed("stop", "bad")
    machine.shed("start", "bad")
    assert machine.shed("exec", "bad", "--", "echo", "well again") == "well again\n"
    assert "detail" not in machine.show("bad")


def test_a_guest_that_floods_its_console(machine: Machine) -> None:
    """Its log stays small while a server runs and while none does, has what came last, and nobody waits for its
    keeper.
    """
    folder = machine.data / "instances/bad"
    log = folder / "console.log"
    line = "yes $(head -c 200 /dev/zero | tr '\\0' x)"
    flood = (
        f'exec > /dev/null 2>&1 < /dev/null; setsid sh -c "{line} > /dev/ttyS0" & setsid sh -c "{line} > /dev/kmsg" &'
    )
    machine.shed("exec", "--user", "root", "bad", "--", "sh", "-c", flood)
    sizes = {0}

    def grown() -> bool:
        sizes.add(log.stat().st_size)
        return max(sizes) >= 1 << 20

    wait_until(grown)
    assert machine.shed("exec", "good", "--", "echo", "fine") == "fine\n"
    assert len(machine.shed("logs", "bad")) <= 1 << 20
    machine.shed("server", "stop")
    before = log.stat().st_size
    wait_until(lambda: log.stat().st_size != before)
    assert machine.shed("exec", "bad", "--", "echo", "fine, too") == "fine, too\n"
    machine.shed("stop", "bad")
    assert log.stat().st_size <= 8 << 20
