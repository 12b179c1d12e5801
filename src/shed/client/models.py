"""What the server says about its things.  Unknown members are kept in `wire` and otherwise ignored.

Missing ones have plain defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Shed:
    """One shed, as the server knows it."""

    name: str
    status: str
    """``running``, ``stopped``, ``starting`` or ``error``."""
    created_at: str
    """RFC 3339, UTC."""
    image: str
    image_digest: str
    cpus: int
    memory_mb: int
    upper_size_bytes: int
    pid: int
    """Process of the VM on the server's machine; 0 when there is none."""
    local_dir: str
    """Folder of the server's machine that is mounted at ``/workspace``; empty when there is none."""
    backend: str
    local_dir_mode: str = ""
    """``rw``, ``ro`` or ``git-rw``: what the shed may do with it."""
    detail: str = ""
    """What is unusual about the status; empty when nothing is."""
    boot: str = ""
    """``warm`` or ``cold``: how the VM came up, in the answer to a create or a start."""
    timings: dict[str, float] = field(default_factory=dict)
    """Milliseconds per phase, of the work that returned this object."""
    wire: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The server's own words."""

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Shed:
        """Return the shed that a JSON object describes."""
        timings = wire.get("timings")
        return cls(
            name=_text(wire, "name"),
            status=_text(wire, "status"),
            created_at=_text(wire, "created_at"),
            image=_text(wire, "image"),
            image_digest=_text(wire, "image_digest"),
            cpus=_number(wire, "cpus"),
            memory_mb=_number(wire, "memory_mb"),
            upper_size_bytes=_number(wire, "upper_size_bytes"),
            pid=_number(wire, "pid"),
            local_dir=_text(wire, "local_dir"),
            backend=_text(wire, "backend"),
            local_dir_mode=_text(wire, "local_dir_mode"),
            detail=_text(wire, "detail"),
            boot=_text(wire, "boot"),
            timings=timings if isinstance(timings, dict) else {},
            wire=wire,
        )


def _text(wire: dict[str, Any], key: str) -> str:
    value = wire.get(key)
    return value if isinstance(value, str) else ""


def _number(wire: dict[str, Any], key: str) -> int:
    value = wire.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
