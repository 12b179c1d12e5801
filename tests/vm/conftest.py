"""How the VMs of these tests come up."""

import pytest

from support.vms.templates import WAYS


@pytest.fixture(scope="session", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """The way of all VMs whose tests do not say otherwise."""
    return str(request.param)
