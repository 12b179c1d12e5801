"""A process in waiting: started before anybody needs it, a child of ours that ends when its socket closes."""

from __future__ import annotations

import os
import socket
import threading
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A child of ours, which somebody has to wait for, and the socket to it."""

    pid: int
    socket: socket.socket


Kind = TypeVar("Kind", bound=Waiting)


class Spare(Generic[Kind]):
    """The one in waiting of its kind, if there is one; for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Kind | None = None
        os.register_at_fork(after_in_child=self._forget)

    def swap(self, other: Kind | None) -> Kind | None:
        """Put `other` in its place, and return it: the caller's from then on."""
        with self._lock:
            self._waiting, before = other, self._waiting
        return before

    def put(self, other: Kind) -> None:
        """Put `other` in its place, and end the one that another thread may have put there."""
        if (before := self.swap(other)) is not None:
            end(before)

    def _forget(self) -> None:
        """In a forked process: it is our parent's, and is to end with that."""
        if self._waiting is not None:
            self._waiting.socket.close()
        self._lock, self._waiting = threading.Lock(), None


def end(process: Waiting) -> None:
    """Close its socket, and wait until it has ended."""
    process.socket.close()
    os.waitpid(process.pid, 0)
