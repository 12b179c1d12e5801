"""The names of sheds that `shed run` makes."""

from __future__ import annotations

import pytest

from shed.cli import run
from shed.cli.app import SHED
from shed.cli.options import Options
from shed.cli.running import FAILED, Request
from shed.errors import ConflictError


def test_another_name_is_tried_while_one_is_taken(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As long as it was not the user's choice, and not for ever."""
    tried: list[str] = []

    def taken(server: object, request: Request, *_: object) -> int:
        tried.append(request.name)
        if len(tried) < free:
            raise ConflictError("there is one", code="SHED_ALREADY_EXISTS")
        return 0

    monkeypatch.setattr(run, "_attached", taken)
    monkeypatch.setattr(run, "client", lambda options: None)
    monkeypatch.setattr(run, "asked_to_create", lambda *_: {})
    free = 3
    assert SHED(["run", "--rm", "true"], Options()) == 0
    assert (len(tried), len({name[:4] for name in tried})) == (3, 1)
    free = 1000
    for words, count in (([], 20), (["--name", "mine"], 1)):
        tried.clear()
        assert SHED(["run", "--rm", *words, "true"], Options()) == FAILED
        assert len(tried) == count
        assert "there is one" in capfd.readouterr().err
