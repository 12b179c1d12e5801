"""The kernel's questions about calls of a process that is held by seccomp, and our answers.

Imports next to nothing: starts of VMs wait for this.  Source: seccomp_unotify(2).
"""

from __future__ import annotations

import fcntl
import os
import select
import struct

_RECEIVE, _SEND, _STILL, _GIVE = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
_QUESTION, _ANSWER, _GIFT = struct.Struct("=QIIiIQ6Q"), struct.Struct("=Qqii"), struct.Struct("=QIIII")
_IN_PLACE_OF = 1
"""SECCOMP_ADDFD_FLAG_SETFD."""
_GO_ON = 1
"""SECCOMP_USER_NOTIF_FLAG_CONTINUE."""


class Question:
    """A call that waits for an answer."""

    __slots__ = ("arguments", "identity", "number")

    def __init__(self, identity: int, number: int, arguments: list[int]) -> None:
        self.identity = identity
        self.number = number
        self.arguments = arguments


def receive(listener: int) -> Question | None:
    """Return the next question; None when nobody is left who could ask.  Raises OSError."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        if not poll.poll()[0][1] & select.POLLIN:
            return None
        question = bytearray(_QUESTION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, question)
        except (InterruptedError, FileNotFoundError):
            continue  # the call was given up in the meantime
        identity, _, _, number, _, _, *arguments = _QUESTION.unpack(question)
        return Question(identity, number, arguments)


def answer(listener: int, identity: int, *, value: int = 0, error: int = 0, go_on: bool = False) -> None:
    """Have the call return `value` or fail with `error`, or, with `go_on`, be done as it is.  Raises OSError."""
    try:  # noqa: SIM105  few imports
        fcntl.ioctl(listener, _SEND, _ANSWER.pack(identity, value, -error, _GO_ON if go_on else 0))
    except FileNotFoundError:
        pass  # as above


def give(listener: int, identity: int, descriptor: int) -> int:
    """Give the process that asks a descriptor of ours; return its number there.  Raises OSError."""
    return int(fcntl.ioctl(listener, _GIVE, bytearray(_GIFT.pack(identity, 0, descriptor, 0, os.O_CLOEXEC))))


def replace(listener: int, identity: int, descriptor: int, number: int) -> None:
    """Put a descriptor of ours in the place of `number` of the process that asks.  Raises OSError."""
    fcntl.ioctl(listener, _GIVE, bytearray(_GIFT.pack(identity, _IN_PLACE_OF, descriptor, number, os.O_CLOEXEC)))


def check(listener: int, identity: int) -> None:
    """Raise OSError unless the call still waits: then what was read of the process was this call's."""
    fcntl.ioctl(listener, _STILL, struct.pack("=Q", identity))
