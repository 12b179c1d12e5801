"""What a shed takes of an image's config, which is hostile."""

from __future__ import annotations

from typing import Any

import pytest

from shed.sheds.image_settings import ImageSettings


def test_what_images_say() -> None:
    """Variables with any values, user and folder; what starts the one program of a container is not asked for."""
    config = {
        "Env": ["PATH=/usr/local/go/bin:/bin", "GOPATH=/go", "EMPTY=", "A=b=c", "A=later"],
        "User": "node",
        "WorkingDir": "/go",
        "Cmd": ["bash"],
        "Entrypoint": ["/entry"],
    }
    env = {"PATH": "/usr/local/go/bin:/bin", "GOPATH": "/go", "EMPTY": "", "A": "later"}
    assert ImageSettings.of(config) == ImageSettings(env, "node", "/go")


@pytest.mark.parametrize(
    "nothing", [{}, {"Env": None, "User": None, "WorkingDir": None}, {"User": "", "WorkingDir": ""}]
)
def test_what_images_do_not_say(nothing: dict[str, Any]) -> None:
    """Missing, null and empty members are the same."""
    assert ImageSettings.of(nothing) == ImageSettings()


@pytest.mark.parametrize(
    "hostile",
    [
        {"Env": "PATH=/x", "User": 5, "WorkingDir": ["/"]},
        {"Env": {"A": "b"}, "User": "a\0b", "WorkingDir": "relative"},
        {"Env": ["no equals", "=x", "A=\0", 5, None, "B=" + "x" * 100_000], "WorkingDir": "/a\0"},
    ],
)
def test_nonsense_is_left_out(hostile: dict[str, Any]) -> None:
    """It cannot be given to a program, so no program gets it; the rest of the shed is as it would be."""
    assert ImageSettings.of(hostile) == ImageSettings()
