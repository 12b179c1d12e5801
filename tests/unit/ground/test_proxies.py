"""How a proxy is written, what goes around it, and that nobody is shown its password."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shed.config.server import ConfigError, Settings, load_settings
from shed.egress.orders import Orders
from shed.proxies import Proxy, no_proxy

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "host", "port", "credentials"),
    [
        ("http://proxy.corp:3128", "proxy.corp", 3128, b""),
        ("http://proxy.corp:3128/", "proxy.corp", 3128, b""),
        ("proxy.corp:3128", "proxy.corp", 3128, b""),
        ("http://Proxy.corp", "proxy.corp", 80, b""),
        ("http://[::1]:8080", "::1", 8080, b""),
        ("http://me:s3cret@10.0.0.1:1", "10.0.0.1", 1, b"me:s3cret"),
        ("http://me%40corp:a%3Ab%2f@p:1", "p", 1, b"me@corp:a:b/"),
        ("http://me@p:1", "p", 1, b"me:"),
    ],
)
def test_a_proxy_is_written_as_a_url(url: str, host: str, port: int, credentials: bytes) -> None:
    """With or without its scheme, its credentials percent-encoded."""
    assert Proxy.parse(url) == Proxy(host, port, credentials)


@pytest.mark.parametrize(
    "url",
    [
        "", "http://", "https://me:s3cret@p:1", "socks5://me:s3cret@p:1", "http://me:s3cret@p:99999", "http://p:1/path",
        "http://p:1?me:s3cret", "http://me:s3%0Acret@p:1", "http://me:s3cret@p:x", "http://me:s3cret@", "http://p q:1",
        "http://me:s3cret@p:1\nX: y", "http://[::1",
    ],
)  # fmt: skip
def test_what_is_no_proxy_is_refused_without_its_password(url: str) -> None:
    """The sentence says what to write."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  each has a sentence of its own
        Proxy.parse(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "host", "port", "fits"),
    [
        ("corp.example", "corp.example", 443, True),
        ("corp.example", "git.corp.example", 443, True),
        (".corp.example", "git.corp.example", 443, True),
        ("*.corp.example", "git.corp.example", 443, True),
        ("corp.example", "evilcorp.example", 443, False),
        ("CORP.example", "git.corp.example", 443, True),
        ("corp.example:8080", "corp.example", 8080, True),
        ("corp.example:8080", "corp.example", 443, False),
        ("corp.example:8080", "corp.example", None, False),
        ("*", "anything.example", 1, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("10.1.2.3:80", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "ten.example", 443, False),
        ("", "corp.example", 443, False),
        (".", "corp.example", 443, False),
    ],
)
def test_what_goes_around_it(entry: str, host: str, port: int | None, fits: bool) -> None:
    """Names with their subdomains, addresses, networks, and single ports, as other programs read NO_PROXY."""
    assert Proxy("p", 1).around([" other.example ", f" {entry} "]).serves(host, port) is not fits


def test_the_environment_names_one() -> None:
    """The lower-case variable first, as curl does; an empty one is none."""
    assert Proxy.of_environment({"HTTPS_PROXY": "http://b:1", "https_proxy": "http://a:1"}) == Proxy("a", 1)
    assert Proxy.of_environment({"all_proxy": "http://c:1", "HTTPS_PROXY": ""}) == Proxy("c", 1)
    assert Proxy.of_environment({"http_proxy": "http://d:1"}) is None
    assert no_proxy({"NO_PROXY": "a,b"}) == ["a", "b"]


def test_its_password_is_shown_to_the_relay_alone() -> None:
    """Not where it is printed."""
    proxy = Proxy.parse(f"http://me:{SECRET}@p:1").around(["x"])
    assert SECRET not in f"{proxy} {proxy!r} {Settings(egress_proxy=proxy)!r}"
    assert proxy.authorization == b"Basic bWU6czNjcmV0"
    orders = Orders(proxy=proxy)
    assert Orders.parse(json.loads(json.dumps(orders.to_json()))) == orders
    assert SECRET not in repr(orders)


def settings(folder: Path, text: str) -> Settings:
    """Return the settings of a file with these lines."""
    file = folder / "server.yaml"
    file.write_text(text)
    return load_settings(file)


def test_the_configuration_names_one(tmp_path: Path) -> None:
    """It comes before the environment, and `none` says that there is none."""
    around = {"https_proxy": "http://e:1", "no_proxy": ".inside"}
    assert Settings().proxy(around) == Proxy("e", 1, no_proxy=(".inside",))
    assert Settings().proxy({}) is None
    named = settings(tmp_path, "egress:\n  proxy: http://p:3128\n")
    assert named.proxy(around) == Proxy("p", 3128, no_proxy=(".inside",))
    named = settings(tmp_path, "egress:\n  proxy: http://p:3128\n  no_proxy: [a.example, 10.0.0.0/8]\n")
    assert named.proxy(around) == Proxy("p", 3128, no_proxy=("a.example", "10.0.0.0/8"))
    assert settings(tmp_path, "egress:\n  proxy: none\n").proxy(around) is None


def test_a_password_is_in_a_private_file(tmp_path: Path) -> None:
    """Neither in a file that others read, nor in the configuration, and never in the error."""
    file = tmp_path / "proxy"
    file.write_text(f"http://me:{SECRET}@p:1\n")
    file.chmod(0o600)
    assert settings(tmp_path, f"egress: {{proxy: {file}}}\n").proxy({}) == Proxy("p", 1, b"me:s3cret")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others: chmod 600"):
        settings(tmp_path, f"egress: {{proxy: {file}}}\n")
    for text in (f"http://me:{SECRET}@p:1", f"https://me:{SECRET}@p:1", f"{tmp_path}/none"):
        with pytest.raises(ConfigError) as caught:
            settings(tmp_path, f"egress: {{proxy: '{text}'}}\n")
        assert SECRET not in f"{caught.value} {caught.value.hint}"
