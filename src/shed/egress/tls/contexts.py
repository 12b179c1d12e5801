"""How TLS is spoken: with a shed, which is shown certificates of its own authority, and with servers, strictly."""

from __future__ import annotations

import os
import ssl
import time
from collections import OrderedDict
from functools import lru_cache

from shed.egress.secrets.authority import FRESH, Authority, Leaf

MOST_LEAVES = 32
"""Hosts of one shed whose certificates are kept; others are signed again when they are needed."""
_MOST_SESSIONS = 64
"""That OpenSSL keeps for clients of TLS 1.2; more, and the context that has them is given up."""
_PROTOCOLS = ["http/1.1"]


class Leaves:
    """TLS contexts for the hosts that a shed connects to, each with a certificate by its authority."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self._kept: OrderedDict[str, tuple[ssl.SSLContext, float]] = OrderedDict()

    def context(self, name: str, ready: Leaf | None = None) -> ssl.SSLContext:
        """Return the context of the server called `name`, with the certificate `ready` if that is fresh.

        Raises `UsageError` for an authority that is none.
        """
        kept = self._kept.pop(name, None)
        if kept is None or kept[1] < time.monotonic() or kept[0].session_stats()["number"] > _MOST_SESSIONS:
            leaf = ready if ready is not None and ready.is_fresh else self._sign(name)
            kept = _context(leaf, name), time.monotonic() + FRESH
        self._kept[name] = kept
        if len(self._kept) > MOST_LEAVES:
            self._kept.popitem(last=False)
        return kept[0]

    def _sign(self, name: str) -> Leaf:
        from shed.egress.secrets.signing import make_leaf  # noqa: PLC0415  `cryptography` takes 12 MB

        return make_leaf(self.authority, name)


def _context(leaf: Leaf, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(_PROTOCOLS)
    _load(context, leaf.pem)

    def check(_: object, told: str | None, __: object) -> int | None:
        if told is None or told.lower().removesuffix(".") == name:
            return None
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = check
    return context


@lru_cache(maxsize=4)
def client_context(extra_authorities: tuple[str, ...]) -> ssl.SSLContext:
    """Return the context for servers, which are certified by the host's store or by one of `extra_authorities` (PEM).

    Raises `ssl.SSLError` for what is no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_PROTOCOLS)
    if extra_authorities:
        context.load_verify_locations(cadata="\n".join(extra_authorities))
    return context


def _load(context: ssl.SSLContext, pem: str) -> None:
    """Load a key and its certificate, which `ssl` takes from files alone: from one that is memory."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
