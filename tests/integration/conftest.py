from collections.abc import Callable
from pathlib import Path

import pytest

from support.servers.scripted_server import Script, ScriptedServer


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], ScriptedServer]:
    """Return a function that makes a scripted server, which SHED_SERVER then names."""

    def make(script: Script) -> ScriptedServer:
        server = ScriptedServer(tmp_path / "s.sock", script)
        monkeypatch.setenv("SHED_SERVER", server.url)
        return server

    return make
