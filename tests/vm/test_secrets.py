"""Certificates and secrets in a real guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shed.egress.signing import make_authority
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def machine(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose administrator has added an authority."""
    root = tmp_path_factory.mktemp("secrets")
    (root / "company.pem").write_text(make_authority("company").certificate)
    made = Machine(root, way=way, settings=f"egress:\n  extra_cas: [{root}/company.pem]\n")
    copy_store(small_store, made.data / "images")
    yield made
    made.end()


def test_the_hosts_authorities_are_trusted_in_a_shed(machine: Machine) -> None:
    """Where programs look, for any image, after each start; and not any more when the host does not."""
    pem = (machine.data.parent / "company.pem").read_text()
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    machine.shed("create", "dev", "--image", "busybox")
    assert machine.shed("exec", "dev", "--", "cat", bundle) == pem
    told = machine.shed("exec", "dev", "--", "sh", "-c", 'cat "$NODE_EXTRA_CA_CERTS"')
    assert told == pem
    machine.shed("exec", "--user", "root", "dev", "--", "sh", "-c", f"echo mine >>{bundle}")
    machine.shed("stop", "dev")
    machine.shed("start", "dev")
    assert sorted(machine.shed("exec", "dev", "--", "cat", bundle).splitlines()) == sorted([*pem.splitlines(), "mine"])
    machine.shed("stop", "dev")
    (machine.data.parent / "company.pem").write_text(make_authority("another").certificate)
    machine.shed("start", "dev")
    kept = machine.shed("exec", "dev", "--", "cat", bundle)
    assert pem not in kept
    assert (machine.data.parent / "company.pem").read_text() in kept
