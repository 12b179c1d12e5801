"""Who the user is to git in a new shed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from shed.cli import identity


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[user]\n\tname = A "B" $C\n\temail = a@example.com\n'),
        ("[user]\n\temail = image@example.com\n", '[user]\n\temail = image@example.com\n\tname = A "B" $C\n'),
    ],
)
def test_what_is_set_stays(tmp_path: Path, before: str, after: str) -> None:
    """The rest is what it is here, whatever characters are in it."""
    (tmp_path / ".gitconfig").write_text(before)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    mine = {"SHED_GIT_name": 'A "B" $C', "SHED_GIT_email": "a@example.com"}
    subprocess.run(["sh", "-c", identity._TELL], env=env | mine, check=True)
    shown = subprocess.run(["git", "config", "--global", "--list"], env=env, capture_output=True, text=True, check=True)
    wanted = tmp_path / "wanted"
    wanted.write_text(after.replace('A "B" $C', '"A \\"B\\" $C"'))
    expected = subprocess.run(
        ["git", "config", "--file", wanted, "--list"], env=env, capture_output=True, text=True, check=True
    )
    assert sorted(shown.stdout.splitlines()) == sorted(expected.stdout.splitlines())


def test_one_who_has_no_name_is_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is asked of the shed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert identity._mine("name") == ""
    (tmp_path / ".gitconfig").write_text("[user]\nname = Ada\n")
    assert identity._mine("name") == "Ada"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert identity._mine("name") == ""
