"""What ports people write, and the profiles they keep them in."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.client.forward import LOCALHOST, Rule, parse_rule
from shed.client.tunnels import profiles
from shed.errors import UsageError


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("80", Rule(80, 80)),
        ("8080:80", Rule(8080, 80)),
        (":80", Rule(0, 80)),
        ("0:80", Rule(0, 80)),
        ("0.0.0.0:8080:80", Rule(8080, 80, "0.0.0.0")),
        ("[::1]:8080:80", Rule(8080, 80, "::1")),
        ("::1:8080:80", Rule(8080, 80, "::1")),
    ],
)
def test_rules(text: str, rule: Rule) -> None:
    """As kubectl and docker write them; and what is shown reads as the same again."""
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule
    assert parse_rule("80", host="10.0.0.1").host == "10.0.0.1"
    assert parse_rule("80").host == LOCALHOST


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "x",
        "0",
        "80:",
        "80:0",
        "65536",
        "-1",
        "1:2:x",
        "٣",
        "8080:65536",
        "1.5",
        "0.0.0.0:1:2:3",
        "[::1:1:2",
        "[x]y:1:2",
    ],
)
def test_what_is_no_rule(text: str) -> None:
    """Named, with how it is written."""
    with pytest.raises(UsageError) as caught:
        parse_rule(text)
    assert caught.value.code == "INVALID_PORT"
    assert repr(text) in caught.value.message


def test_profiles(tmp_path: Path) -> None:
    """3000:30 is two ports, not a number of base 60."""
    file = tmp_path / "tunnels.yaml"
    assert profiles(file) == {}
    file.write_text("profiles:\n  default: [3000, 8080:80]\n  odd:\n  - 3000:30\n")
    assert profiles(file) == {"default": [Rule(3000, 3000), Rule(8080, 80)], "odd": [Rule(3000, 30)]}


@pytest.mark.parametrize(
    "text",
    [
        "profils: {}",
        "[1]",
        "profiles: {a: 3000}",
        "profiles: {a: []}",
        "profiles: {a: [x]}",
        "profiles: {a: [[1]]}",
        "a: {",
    ],
)
def test_profiles_with_mistakes(tmp_path: Path, text: str) -> None:
    """The file is named, never a traceback."""
    file = tmp_path / "tunnels.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"cannot use .*tunnels\.yaml") as caught:
        profiles(file)
    assert caught.value.code == "INVALID_CONFIG"


def test_a_profile_with_a_mistake_is_named(tmp_path: Path) -> None:
    """The others are right."""
    file = tmp_path / "tunnels.yaml"
    file.write_text("profiles: {good: [80], bad: []}")
    with pytest.raises(UsageError, match="profile 'bad' must be a list of ports"):
        profiles(file)
