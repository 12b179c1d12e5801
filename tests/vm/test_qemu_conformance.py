"""QEMU does what every backend has to do: the same checks as for the fake one, with real VMs."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.backends.qemu import QemuBackend
from shed.oci.store import LayoutStore
from shed.sheds.folders import prepare
from support.vms.conformance import EVERY, Bench, Try
from support.vms.lab import Lab, vm_test
from support.vms.templates import COLD

pytestmark = [pytest.mark.vm, pytest.mark.slow]


@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.__name__)
def test_qemu(small_store: LayoutStore, tmp_path: Path, check: Try) -> None:
    """Each with a backend of its own, whose VMs are booted."""

    async def work(lab: Lab) -> None:
        prepare(lab.paths)
        await check(Bench(lab.backend, lambda: QemuBackend(lab.paths), lab.machine))

    vm_test(work, Lab(small_store, tmp_path, COLD))
