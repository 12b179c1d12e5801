"""What a shed says has changed of its image: taken as it comes, within bounds, and from hostile ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shed.client import image_changes
from shed.client.address import Address
from shed.client.copying import CopyError
from shed.execstream import Exit

HERE = Address(path="/nowhere")


def told(monkeypatch: pytest.MonkeyPatch, *pieces: bytes, code: int = 0, said: tuple[str, ...] = ()) -> list[str]:
    """Return what is told of a shed whose program prints `pieces`."""

    def ask(address: Address, name: str, command: list[str], *, hear: Callable[[bytes], object], **_: Any) -> Any:
        for piece in pieces:
            hear(piece)
        return Exit(code), list(said)

    monkeypatch.setattr(image_changes, "ask", ask)
    found: list[str] = []
    count = image_changes.changes(HERE, "dev", lambda kind, path: found.append(f"{kind} {path}"), on_start=lambda: None)
    assert count == len(found)
    return found


def test_pieces_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they are cut; a name that is no text is told as Python has it."""
    text = b"A/one\0M/t\xff\n\0D/three\0"
    for at in range(len(text)):
        assert told(monkeypatch, text[:at], text[at:]) == ["A /one", "M /t\udcff\n", "D /three"]
    assert told(monkeypatch) == []


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ([b"X/one\0"], "does not say"),
        ([b"\0"], "does not say"),
        ([b"hello"], "does not say"),
        ([b"A/" + b"x" * 5000], "does not say"),
        ([b"A/" + b"x" * 5000 + b"\0"], "does not say"),
        ([b"A/x\0" * 100_000] * 6, "more has changed"),
        ([(b"A/" + b"x" * 1000 + b"\0") * 1000] * 70, "more has changed"),
    ],
)
def test_lying_sheds(monkeypatch: pytest.MonkeyPatch, pieces: list[bytes], says: str) -> None:
    """One error, before it costs much."""
    with pytest.raises(CopyError, match=says):
        told(monkeypatch, *pieces)


def test_a_shed_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why is told, as it says."""
    with pytest.raises(CopyError, match=r"cannot tell what has changed in it: the disks: No such device"):
        told(monkeypatch, code=1, said=('{"error": "the disks: No such device"}',))
