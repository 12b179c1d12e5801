"""Which command allows a connection that was refused, in words for the user of the host."""

from __future__ import annotations

import json

from shed.egress.orders import Orders
from shed.egress.relay.flow import Flow
from shed.egress.rules.hostports import HOST
from shed.egress.rules.profiles import BUILT_IN


def remedy(shed: str, flow: Flow, orders: Orders) -> str:
    """Return the command that would allow the refused connection `flow` of `shed`; empty when nothing does."""
    if flow.name == HOST:
        return f"to allow it, on the host: shed ports {shed} --host-port {flow.port}"
    if not flow.verdict.lacks:
        return ""
    rule = json.dumps({"allow": flow.verdict.lacks, "ports": [flow.port]})
    names = [profile.name for profile in orders.profiles]
    own = next((name for name in names if name not in BUILT_IN), "")
    then = "" if own else f"; then: shed egress set {shed} {' '.join([*names, shed])}"
    return f"to allow it, on the host: shed egress profile edit {own or shed}, with the rule {rule}{then}"
