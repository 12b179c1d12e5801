"""Profiles by the command line: edited, refused when they are wrong, and those of the server's configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.config.server import Settings, parse_settings
from shed.errors import ShedError
from support.servers.fake_server import fake_server

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs the command line, with an editor that is a shell command."""
    with fake_server(tmp_path):

        def shed(*words: str, editor: str = "false") -> subprocess.CompletedProcess[str]:
            script = tmp_path / "editor"
            script.write_text(f"#!/bin/sh\n{editor}\n")
            script.chmod(0o755)
            server = f"unix://{tmp_path}/run/shed.sock"
            env = {**os.environ, "SHED_SERVER": server, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
            env |= {"EDITOR": str(script), "VISUAL": ""}
            return subprocess.run(
                [sys.executable, "-m", "shed.cli.main", *words],
                env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip

        yield shed


def rules(run: Run, name: str) -> list[object]:
    """Return the rules of a profile."""
    found: list[object] = json.loads(run("egress", "profile", "show", name, "--json").stdout)["rules"]
    return found


def test_a_profile_is_made_and_changed_in_an_editor(run: Run, tmp_path: Path) -> None:
    """One that there is not begins with an explanation, others with their rules; nothing is left behind."""
    append = """printf 'rules: [{allow: one.example.com}]\\nlog: all\\n' > "$1" """
    assert run("egress", "profile", "edit", "work", editor=append).stdout == "set work: 1 rules\n"
    assert rules(run, "work") == [{"allow": "one.example.com"}]
    change = """grep -q one.example.com "$1" && sed -i 's/one/two/' "$1" """
    assert run("egress", "profile", "edit", "work", editor=change).returncode == 0
    assert rules(run, "work") == [{"allow": "two.example.com"}]
    assert run("egress", "profile", "edit", "work", editor="true").stdout == "work is as it was\n"
    assert not list(tmp_path.glob("work-*"))


@pytest.mark.parametrize("text", ["rules: [{allow: https://x}]", "rules: [", "x"])
def test_a_text_with_an_error_is_kept(run: Run, tmp_path: Path, text: str) -> None:
    """And the profile is as it was; the error says what is wrong, and how to go on."""
    failed = run("egress", "profile", "edit", "work", editor=f"printf '{text}' > \"$1\"")
    (kept,) = tmp_path.glob("work-*.yaml")
    assert failed.returncode == 2
    assert f"then: shed egress profile set work {kept}" in failed.stderr
    assert kept.read_text() == text
    assert run("egress", "profile", "show", "work").returncode == 2


def test_an_editor_that_fails_changes_nothing(run: Run) -> None:
    """Whatever it has written."""
    failed = run("egress", "profile", "edit", "work", editor="echo 'rules: []' > $1; exit 3")
    assert (failed.returncode, "has failed with code 3" in failed.stderr) == (2, True)
    assert run("egress", "profile", "show", "work").returncode == 2


def test_what_is_not_ones_own_cannot_be_edited(run: Run) -> None:
    """The editor is not even started."""
    failed = run("egress", "profile", "edit", "internet", editor="touch $HOME/started")
    assert "cannot be changed" in failed.stderr
    assert failed.returncode != 0


def configured(profiles: object) -> Settings:
    """Return the settings with these profiles."""
    return parse_settings(json.dumps({"egress": {"profiles": profiles}}), Path("server.yaml"))


def test_profiles_of_the_configuration() -> None:
    """They are checked when it is read, and cannot take the name of a built-in one."""
    profiles = {"work": {"rules": [{"allow": "*.example.com", "ports": [443]}]}}
    settings = configured(profiles)
    assert str(settings.egress_profiles["work"].rules[0]) == "work: allow *.example.com ports 443"
    cases: list[tuple[object, str]] = [
        ({"work": {"rules": [{"allow": "https://x"}]}}, "egress profile work: rule 1"),
        ({"internet": {"rules": []}}, "internet is a profile that every server has"),
        (["work"], "must be profiles by name"),
    ]
    for wrong, what in cases:
        with pytest.raises(ShedError, match=what):
            configured(wrong)
