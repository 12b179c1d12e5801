"""What a session may use is what its user names, however an agent writes it."""

from __future__ import annotations

import pytest

from shed.errors import ForbiddenError
from shed.mcp.grant import Grant, check_allowed


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/me/x",
        "https://example.org/me/x.git#main",
        "https://example.org/me/a/b",
        "https://example.org/one",
        "https://example.org/one#v1",
    ],
)
def test_repositories_that_begin_as_the_user_says(url: str) -> None:
    """A beginning ends at a slash; a whole URL may have a branch behind it."""
    Grant(repos=("https://example.org/me", "https://example.org/one")).check_repo(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.org/",
        "https://example.org/mean/x",
        "https://example.org.evil/me/x",
        "https://example.org/me/../you/x",
        "https://example.org/me/..\\you",
        "https://example.org/one/../two",
        "https://example.org/me/x\n",
        "https://me@example.org/me/x",
        "HTTPS://example.org/me/x",
    ],
)
def test_other_repositories(url: str) -> None:
    """What only looks like it is refused."""
    with pytest.raises(ForbiddenError, match="may not use the repository"):
        Grant(repos=("https://example.org/me", "https://example.org/one")).check_repo(url)


def test_names_are_compared_whole() -> None:
    """Nothing asked is the server's to choose; an error says what is allowed."""
    check_allowed("image", None, (), "--allow-image")
    check_allowed("image", "base", ("base",), "--allow-image")
    with pytest.raises(ForbiddenError, match="may not use the image 'base:1'") as caught:
        check_allowed("image", "base:1", ("base", "full"), "--allow-image")
    assert caught.value.hint == "allowed: base, full"
