"""What a relay that opens TLS does not take."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.egress.secrets.signing import make_leaf
from support.servers.netlab import lab
from support.servers.openedshed import Shed

pytestmark = pytest.mark.root


def test_what_signs_is_not_loaded_for_a_host_whose_certificate_is_ready(tmp_path: Path) -> None:
    """It takes a relay twelve megabytes; for a host without one it is loaded."""
    with lab(tmp_path) as net:
        shed, maps = Shed(net), Path(f"/proc/{net.netd.pid}/maps")
        shed.order(leaves=[make_leaf(shed.authority, "*.example.com").to_json()])
        for name in ("api", "other"):
            assert shed.curl(f"https://{name}.example.com/hello").endswith("[0]")
        assert "cryptography" not in maps.read_text()
        shed.order(leaves=[])
        assert shed.curl("https://api.example.com/hello").endswith("[0]")
        assert "cryptography" not in maps.read_text(), "its certificate is kept"
        shed.order(secrets=Shed.known(hosts=["plain.example.com"]), leaves=[])
        assert shed.curl("https://plain.example.com/hello").endswith("[0]")
        assert "cryptography" in maps.read_text()
