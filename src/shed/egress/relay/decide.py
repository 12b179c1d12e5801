"""What is decided about one connection before anything is dialled: whether it may be, and which way it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shed.egress.orders import Orders
from shed.egress.relay.flow import Flow
from shed.egress.rules.addresses import Address
from shed.egress.rules.hostports import HOST, LOOPBACK
from shed.egress.rules.policy import Verdict
from shed.proxies import Proxy

_KNOWN = 1.0
"""Seconds in which the host's resolver says what it knows of a name that the proxy looks up."""
Resolve = Callable[[str], Awaitable[list[Address]]]
"""Returns the addresses of a name, as the host's resolver has them; an empty list when there is no such name.  Raises
`OSError` when that cannot be told.
"""
IsOwn = Callable[[Address], bool]
"""Tells the host's own addresses."""


async def decide(flow: Flow, orders: Orders, resolve: Resolve, is_own: IsOwn) -> list[Address]:
    """Set the verdict on `flow`, and its proxy; return the addresses that may be dialled where there is no proxy."""
    addresses = await _addresses(flow, orders, resolve, is_own)
    if flow.verdict.allowed and await _is_the_proxy(flow, addresses, orders.proxy, resolve):
        flow.verdict = Verdict(False, "it is the proxy of the host, which asks for the shed where that is allowed")
        return []
    return addresses


async def _addresses(flow: Flow, orders: Orders, resolve: Resolve, is_own: IsOwn) -> list[Address]:
    def about(address: Address, *, named: bool) -> Verdict:
        return orders.policy.about_address(address, flow.port, own=is_own, named=named)

    if flow.name == HOST:
        flow.verdict, flow.host_port = orders.about_host(flow.port), orders.host_port(flow.port)
        return list(LOOPBACK)
    if orders.proxy is not None and orders.proxy.serves(flow.host, flow.port):
        flow.proxy = orders.proxy
    if flow.name is None:
        flow.verdict = about(flow.address, named=False)
        return [flow.address]
    flow.verdict = orders.policy.about_name(flow.name, flow.port)
    if not flow.verdict.allowed:
        return []
    if flow.proxy is not None:
        found = await _known(flow.name, resolve)
        refused = [verdict for address in found if not (verdict := about(address, named=True)).allowed]
        if flow.name == "localhost" or flow.name.endswith(".localhost"):
            refused.append(Verdict(False, f"{flow.name} is never reached from a shed"))
        flow.verdict = refused[0] if refused else flow.verdict
        return found
    try:
        found = await resolve(flow.name)
    except OSError as error:
        flow.error = f"the name cannot be looked up: {error.strerror}"
        return []
    if not found:
        flow.error = "there is no such name"
    verdicts = {address: about(address, named=True) for address in found}
    allowed = [address for address, verdict in verdicts.items() if verdict.allowed]
    if found and not allowed:
        flow.address, flow.verdict = next(iter(verdicts.items()))  # for the log
    return allowed


async def _known(name: str, resolve: Resolve) -> list[Address]:
    """Return what the host knows of a name, which may be nothing: in a company's network only the proxy knows names."""
    try:
        async with asyncio.timeout(_KNOWN):
            return await resolve(name)
    except (OSError, TimeoutError):
        return []


async def _is_the_proxy(flow: Flow, addresses: list[Address], proxy: Proxy | None, resolve: Resolve) -> bool:
    """Say whether the shed would talk to the proxy itself, and have it go where no rule is asked."""
    port = flow.port if flow.host_port is None else flow.host_port.port
    if proxy is None or port != proxy.port:
        return False
    return flow.host == proxy.host or not set(addresses).isdisjoint(await _known(proxy.host, resolve))
