"""`shed code`: which editor is started, and with what."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.cli.app import SHED
from shed.cli.options import Options
from shed.client.ssh_config import Host, text_of
from shed.errors import NotFoundError, UnavailableError

EDITOR = '#!/bin/sh\nprintf \'%s\\n\' "$0" "$DISPLAY" "$@" >"$HOME/started"\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which OpenSSH knows dev on two servers."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("DISPLAY", ":9")
    (tmp_path / "bin").mkdir()
    (tmp_path / ".shed").mkdir()
    hosts = [
        Host(alias, server, "dev", "127.0.0.1", 2222, tmp_path / "known")
        for alias, server in (("shed-dev.far", "far"), ("shed-dev", "local"))
    ]
    (tmp_path / ".shed/ssh_config").write_text(text_of(hosts))
    return tmp_path


def install(home: Path, name: str) -> None:
    """Install a stand-in that notes how it was started."""
    path = home / "bin" / name
    path.write_text(EDITOR)
    path.chmod(0o755)


def started(home: Path) -> list[str]:
    """Return the editor that was started, the display that it has, and its arguments."""
    program, *rest = (home / "started").read_text().splitlines()
    return [Path(program).name, *rest]


def test_the_editor_that_is_there_gets_the_folder(home: Path) -> None:
    """The workspace, or the one that is named, of the shed on the server that is named."""
    install(home, "zed")
    assert SHED(["code", "dev"], Options()) == 0
    assert started(home) == ["zed", ":9", "ssh://shed-dev/workspace"]
    install(home, "code")
    options = Options()
    options.server = "far"
    assert SHED(["code", "dev", "/srv/a b"], options) == 0
    assert started(home) == ["code", ":9", "--folder-uri", "vscode-remote://ssh-remote+shed-dev.far/srv/a%20b"]
    assert SHED(["code", "dev", "-e", "zed"], Options()) == 0
    assert started(home)[0] == "zed"


def test_what_is_missing_is_told_with_the_next_step(home: Path) -> None:
    """An editor, or the shed in the configuration of OpenSSH."""
    with pytest.raises(UnavailableError, match="no editor"):
        SHED(["code", "dev"], Options())
    with pytest.raises(UnavailableError) as caught:
        SHED(["code", "dev", "--editor", "cursor"], Options())
    assert "is cursor installed here?" in str(caught.value.hint)
    with pytest.raises(NotFoundError) as unknown:
        SHED(["code", "other"], Options())
    assert unknown.value.hint == "tell it: shed ssh-config --install"
