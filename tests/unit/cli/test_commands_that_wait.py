"""Commands whose server takes its time say what they wait for."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.cli import app, egress, ports, secret, sessions
from shed.cli.options import Options
from shed.client import local
from shed.errors import UnavailableError
from shed.terminal import progress


@pytest.mark.parametrize(
    "words",
    [
        ["secret", "set", "key", "--host", "api.example.com", "--from-env", "KEY"],
        ["secret", "list"],
        ["secret", "rm", "key"],
        ["secret", "give", "dev", "key"],
        ["secret", "take", "dev", "key"],
        ["egress", "set", "dev", "offline"],
        ["egress", "off", "dev"],
        ["ports", "dev"],
        ["sessions"],
        ["sessions", "dev"],
    ],
    ids=" ".join,
)
def test_a_command_says_what_it_waits_for(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence is there while the server is asked, and for no longer."""
    shown: list[str] = []

    @contextlib.contextmanager
    def waiting(message: str, *, json: bool) -> Iterator[None]:
        shown.append(message)
        yield
        shown.pop()

    class Slow:
        def __getattr__(self, name: str) -> Callable[..., None]:
            def ask(*_: object, **__: object) -> None:
                raise UnavailableError(f"while waiting: {len(shown)}")

            return ask

    monkeypatch.setattr(progress, "waiting", waiting)
    for module in (secret, egress, ports, sessions):
        for name in ("client", "client_of"):
            monkeypatch.setattr(module, name, lambda *_: Slow(), raising=False)
    with pytest.raises(UnavailableError, match="while waiting: 1"):
        app.run(words, Options())


@pytest.mark.parametrize(("patience", "times"), [(0.0, 1), (3600.0, 0)])
def test_a_start_of_the_server_is_told_when_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, times: int
) -> None:
    """Once, however long it takes; not when it is quick."""
    for name in ("SHED_DATA_DIR", "SHED_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))

    class Server:
        returncode = None

        def poll(self) -> None:
            return None

    monkeypatch.setattr(local, "_PATIENCE", patience)
    monkeypatch.setattr(local, "_spawn", lambda _: Server())
    told: list[int] = []
    looks = itertools.count()
    assert local.start_server(lambda: next(looks) > 4, on_wait=lambda: told.append(1))
    assert len(told) == times
