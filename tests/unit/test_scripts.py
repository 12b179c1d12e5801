"""`make images` and `make demo`, without what their commands do: each is one that `shed` has, with words it takes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from shed.cli import exec as exec_words
from shed.cli.app import SHED
from shed.cli.command import Command, Group
from shed.cli.options import Options
from shed.images.recipe import find_recipe

ROOT = Path(__file__).parents[2]


def script(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """Return a script as a module."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module(name)


def understood(command: Sequence[str | Path]) -> str:
    """Return the words of a call of `shed`, which must mean something."""
    program, *words = map(str, command)
    assert program == str(Path(sys.executable).with_name("shed"))
    found, rest = SHED.commands[words[0]].load(), words[1:]
    while isinstance(found, Group):
        found, rest = found.commands[rest[0]].load(), rest[1:]
    if isinstance(found, Command):
        assert found.parse(rest, Options()) is not None
    else:
        assert exec_words.parse(rest, Options()).command
    return " ".join(words)


class Made:
    """Takes the commands of `images.py` in place of running them; a `make` leaves an archive."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def run(self, *command: str | Path) -> None:
        """Take one."""
        words = understood(command)
        self.said.append(words)
        if words.startswith("image make"):
            Path(command[command.index("--output") + 1]).write_bytes(b"archive")

    def makes(self) -> list[str]:
        """Return what was made since the last call."""
        said, self.said = self.said, []
        return [words.split()[2] for words in said if words.startswith("image make")]


def test_make_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each on the one below; what is there is not made again; a change makes it and those above it anew."""
    images, made = script(monkeypatch, "images"), Made()
    monkeypatch.setattr(images, "ARCHIVES", tmp_path)
    monkeypatch.setattr(images, "run", made.run)
    images.main("base")
    assert made.said[0] == "image bootkit build"
    assert made.said[-1].endswith("-n base")
    assert made.makes() == ["base"]
    images.main()
    assert sum(words.endswith(("-n base", "-n extensions", "-n full")) for words in made.said) == 3
    assert made.makes() == ["extensions", "full"]
    images.main()
    assert made.makes() == []
    recipes = tmp_path / "recipes"
    for name in ("base", "extensions", "full"):
        (recipes / name).mkdir(parents=True)
        for path in find_recipe(name).iterdir():
            (recipes / name / path.name).write_bytes(path.read_bytes())
    (recipes / "extensions/packages").write_text("vim\n")
    monkeypatch.setattr(images, "find_recipe", lambda name: recipes / name)
    images.main()
    assert made.makes() == ["extensions", "full"]
    assert len(list(tmp_path.glob("*.oci.tar"))) == 3


@pytest.mark.parametrize("there", [True, False])
def test_make_demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, there: bool) -> None:
    """From the image, which is made when it is not there, to a shed that is gone; a file survives a stop."""
    demo = script(monkeypatch, "demo")
    said: list[str] = []

    def run(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        if command[0] == sys.executable:
            assert list(command[1:]) == [str(ROOT / "scripts/images.py"), "base"]
            said.append("images")
        elif list(command[1:]) == ["warm"]:
            assert Path(command[0]) == Path(sys.executable).with_name("shed-server")
            said.append("warm")
        else:
            said.append(understood(command))
        missing = said == ["image inspect base"] and not there
        return subprocess.CompletedProcess(command, int(missing), demo.MESSAGE if said[-1].endswith("note") else "")

    monkeypatch.setattr(demo.subprocess, "run", run)
    demo.main()
    assert ("images" in said) is not there
    assert ("warm" in said) is not there
    assert said[-1] == f"delete {demo.NAME} --force"
    assert [words.split()[0] for words in said if words not in {"images", "warm"}] == [
        "image", "create", "exec", "exec", "stop", "start", "exec", "delete",
    ]  # fmt: skip
    assert "Delete it" in capsys.readouterr().out
