"""Which server is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.client.address import parse
from shed.client.config import resolve
from shed.config.paths import Paths
from shed.errors import UsageError


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SHED_SERVER", raising=False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("unix:///run/shed/shed.sock", "unix:///run/shed/shed.sock"),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
        ("http://lab.example/", "http://lab.example:8080"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://[fe80::1]", "http://[fe80::1]:8080"),
    ],
)
def test_urls_are_understood(url: str, shown: str) -> None:
    """A URL names a socket, or a host with or without a port; IPv6 addresses stay in brackets."""
    assert str(parse(url)) == shown


@pytest.mark.parametrize(
    "url",
    ["unix://relative", "http://", "http://host:0", "http://host:65536", "http://host:x", "http://[::1", "http://[::1]80",
     "http://a/b", "http://user@host", "ftp://host", "https://host", "http://a b"],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    """What cannot be reached is refused before anything is tried."""
    with pytest.raises(UsageError):
        parse(url)


def test_without_configuration_the_local_server_is_meant() -> None:
    """The client looks for the socket where the server puts it, and only that server may be started."""
    address = resolve()
    assert address.local
    assert address.path == str(Paths().socket)


def test_the_environment_names_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """SHED_SERVER counts, and the option counts more."""
    monkeypatch.setenv("SHED_SERVER", "http://one:1")
    assert str(resolve()) == "http://one:1"
    assert str(resolve("http://two:2")) == "http://two:2"
    assert not resolve().local


def test_a_configured_server_is_found_by_name(tmp_path: Path) -> None:
    """The configuration's default is used without -s; with it, the one that is named."""
    file = tmp_path / ".shed/config.yaml"
    file.parent.mkdir()
    file.write_text(
        "default_server: lab\nservers:\n  lab: {host: lab.example}\n  six: {host: '::1', http_port: 81}\nother: 1\n"
    )
    assert str(resolve()) == "http://lab.example:8080"
    assert str(resolve("six")) == "http://[::1]:81"
    with pytest.raises(UsageError, match="knows no server 'lap'") as caught:
        resolve("lap")
    assert caught.value.hint == "did you mean lab?"


def test_a_configuration_without_default_leaves_the_local_server(tmp_path: Path) -> None:
    """Having a file changes nothing by itself."""
    file = tmp_path / "config.yaml"
    file.write_text("servers: {}\n")
    assert resolve(config=str(file)).local


@pytest.mark.parametrize(
    "text",
    ["[1]", "servers: [a]\ndefault_server: x", "a: {", "servers: {x: 1}\ndefault_server: x", "default_server: [1]"],
)
def test_a_broken_configuration_is_named(tmp_path: Path, text: str) -> None:
    """The message holds the file, never a traceback."""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"config\.yaml"):
        resolve(config=str(file))


def test_a_named_configuration_must_exist(tmp_path: Path) -> None:
    """A mistyped --config is not the same as none."""
    with pytest.raises(UsageError, match="does not exist"):
        resolve(config=str(tmp_path / "none.yaml"))
