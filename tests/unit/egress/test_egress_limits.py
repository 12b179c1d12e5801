"""Methods and paths: what fits, and what is never taken for it, however it is spelled."""

from __future__ import annotations

import posixpath
import string
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.egress.rules.limits import Limits, settled_path


def fits(target: str, *paths: str, method: str = "GET") -> bool:
    """Say whether a GET of `target` is one for these paths."""
    return Limits.parse(["GET"], list(paths)).fit(method, target)


@pytest.mark.parametrize(("target", "pattern", "expected"), [
    ("/repos/me/x", "/repos/me/*", True),
    ("/repos/me/x/y?page=2", "/repos/me/*", True),
    ("/repos/me/", "/repos/me/*", True),
    ("/repos/me", "/repos/me/*", False),
    ("/repos/you/x", "/repos/me/*", False),
    ("/Repos/me/x", "/repos/me/*", False),
    ("/repos/%6De/x", "/repos/me/*", True),
    ("/repos/me/a%20b", "/repos/me/*", True),
    ("/repos/me/a%c3%a9", "/repos/me/a%C3%A9", True),
    ("/a/x/b/y/c", "/a/*/b/*/c", True),
    ("/a/b/c", "/a/*/b/*/c", False),
    ("/aa", "/a*a", True),
    ("/a", "/a*a", False),
    ("/ab", "/*ab*b", False),
    ("/x", "/*", True),
])  # fmt: skip
def test_a_path_is_like_a_pattern(target: str, pattern: str, expected: bool) -> None:
    """A star is any characters; letters are compared as they are."""
    assert fits(target, pattern) is expected


@pytest.mark.parametrize("path", [
    "/repos/me/../you", "/repos/me/..", "/repos/me/%2e%2e/you", "/repos/me/.%2E/you", "/repos/me/%2e/x",
    "/repos/me/./x",
    "/repos/me/..;/you", "/repos/me/..;a=b/you", "/repos/me/%2e%2e;x/you", "/repos/me//x", "//repos/me/x",
    "/repos/me/;/x",
    "/repos/me/;x/y", "/repos/me/x;", "/repos/me/;", "/repos/me/..%2fyou", "/repos/me/..%2Fyou", "/repos/me/..%5cyou",
    "/repos/me/..\\you",
    "/repos/me/%252e%252e/you", "/repos/me/%00", "/repos/me/%0d%0a", "/repos/me/%1f", "/repos/me/%7f", "/repos/me/%",
    "/repos/me/%zz", "/repos/me/%u002e", "/repos/me/a b", "/repos/me/\x7f", "/repos/me/\u00e9", "/repos/me/x#y",
    "repos/me/x",
    "", "*", "https://api.example.com/repos/me/x",
])  # fmt: skip
def test_a_path_that_servers_read_differently_fits_nothing(path: str) -> None:
    """Not even a pattern for everything, except for a parameter at its end."""
    assert fits(path, "/repos/me/*", "/*") is (path == "/repos/me/x;")


@pytest.mark.parametrize(("query", "expected"), [
    ("?service=git-upload-pack", True),
    ("?x=1&service=git-upload-pack", True),
    ("?service=git%2Dupload%2dpack", True),
    ("", False), ("?", False), ("?service", False), ("?service=", False),
    ("?service=git-receive-pack", False),
    ("?service=git-upload-pack&service=git-receive-pack", False),
    ("?service=git-receive-pack&service=git-upload-pack", False),
    ("?service=git-upload-pack&SERVICE=git-receive-pack", False),
    ("?service=git-upload-pack&%73ervice=git-receive-pack", False),
    ("?service=git-upload-pack;service=git-receive-pack", False),
    ("?service=git-upload-pack&a;service=git-receive-pack", False),
    ("?xservice=git-upload-pack", False),
])  # fmt: skip
def test_a_query_has_a_member_once(query: str, expected: bool) -> None:
    """So git may read where it may not write, whichever of two members a server takes."""
    assert fits(f"/me/repo.git/info/refs{query}", "/*/info/refs?service=git-upload-pack") is expected


def test_methods_are_compared_as_they_are() -> None:
    """Methods have no other spelling."""
    assert fits("/x", "/x")
    for method in ("POST", "get", "GETX", ""):
        assert not fits("/x", "/x", method=method)
    assert Limits.parse(None, ["/x"]).fit("POST", "/x")
    assert Limits().fit("DELETE", "whatever")


_SPELLINGS = st.text(st.sampled_from([*string.ascii_letters[:4], *"./;%\\25eEfF?#*é \0"]), max_size=30)


@given(_SPELLINGS)
def test_what_is_settled_means_one_thing(text: str) -> None:
    """A path that has a settled spelling keeps it, and stays where it is when dots and escapes are worked out."""
    settled = settled_path("/a/" + text)
    if settled is not None:
        assert settled_path(settled) == settled
        decoded = unquote(settled)
        assert posixpath.normpath(decoded).startswith("/a")
        assert "\\" not in decoded
        assert decoded.count("/") == settled.count("/")


@given(
    st.lists(st.text(st.sampled_from("ab/"), max_size=4), min_size=1, max_size=5),
    st.text(st.sampled_from("ab"), max_size=12),
)
def test_stars_are_as_in_a_shell(parts: list[str], path: str) -> None:
    """Compared with regular expressions."""
    import re

    from shed.egress.rules.limits import _is_like

    assert _is_like("*".join(parts), path) == bool(re.fullmatch(".*".join(map(re.escape, parts)), path))
