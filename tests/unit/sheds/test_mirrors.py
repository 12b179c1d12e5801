"""The host's settings for mirrors of packages: what sheds get, and what stays because it would open a door."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from shed.config.paths import Paths
from shed.config.server import Settings
from shed.run import run
from shed.sheds import terms
from shed.sheds.mirrors import Mirrors, of_host
from shed.sheds.terms import Terms

SECRET = "s3cr3t"


def host(folder: Path, environment: Mapping[str, str] | None = None, **files: str) -> Mirrors:
    """Return the settings of a host with these files: ``pip`` and ``npm`` of the machine, ``own_…`` of the user."""
    places = {"pip": "etc/pip.conf", "npm": "etc/npmrc", "own_pip": "home/.config/pip/pip.conf"}
    places |= {"own_npm": "home/.npmrc", "apt": "etc/apt/apt.conf.d/50x"}
    for name, text in files.items():
        path = folder / places[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return of_host(environment or {}, folder / "home", folder)


def test_a_host_without_settings_has_nothing_to_say(tmp_path: Path) -> None:
    """Files that say other things neither."""
    assert host(tmp_path) == Mirrors({}, "", ())
    assert host(tmp_path, pip="[global]\ncert = /x\n", npm="fund=false\n", apt='APT::X "y";\n') == Mirrors({}, "", ())


def test_settings_of_files_and_of_the_environment(tmp_path: Path) -> None:
    """A user's file goes before the machine's, ``install`` before ``global``, the environment before all."""
    pip = "[global]\nindex-url = https://all/simple\nextra_index_url =\n  https://one/s\n  http://two:80/s\n"
    pip += "trusted-host = two\n[install]\nindex-url = https://install/simple\n"
    found = host(tmp_path, pip=pip, npm="registry=https://all/\n", own_npm='# x\nregistry = "https://own:4873/n/"\n')
    assert found.left_out == ()
    assert found.variables == {
        "PIP_INDEX_URL": "https://install/simple",
        "PIP_EXTRA_INDEX_URL": "https://one/s http://two:80/s",
        "PIP_TRUSTED_HOST": "two",
        "UV_DEFAULT_INDEX": "https://install/simple",
        "UV_INDEX": "https://one/s http://two:80/s",
        "NPM_CONFIG_REGISTRY": "https://own:4873/n/",
    }
    environment = {
        "PIP_INDEX_URL": "https://env/s",
        "UV_DEFAULT_INDEX": "uv=https://uv/s",
        "npm_config_registry": "http://e/",
    }
    found = host(tmp_path, environment)
    assert found.variables["PIP_INDEX_URL"] == "https://env/s"
    assert found.variables["UV_DEFAULT_INDEX"] == "uv=https://uv/s"
    assert found.variables["NPM_CONFIG_REGISTRY"] == "http://e/"
    assert host(tmp_path, own_pip="[global]\nindex_url=https://own/s\n[install]\nindex-url=\n").variables[
        "PIP_EXTRA_INDEX_URL"
    ]


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{SECRET}@pypi.corp/simple",
        f"https://{SECRET}@pypi.corp/simple",
        f"https://pypi.corp/simple?token={SECRET}",
        "https://pypi.corp/${S3CR3T}/simple",
    ],
)
def test_credentials_stay_on_the_host(tmp_path: Path, url: str) -> None:
    """Wherever they stand in an address; the reason names the host and the way to go, and no secret."""
    found = host(
        tmp_path,
        {"UV_INDEX": f"x={url}"},
        pip=f"[global]\nindex-url={url}\nextra-index-url={url}\n",
        npm=f"registry={url}",
    )
    assert found.variables == {}
    assert SECRET not in "".join(found.left_out)
    assert len(found.left_out) == 4
    for sentence, what in zip(found.left_out, ("pip's index-url", "pip's extra", "UV_INDEX", "npm's reg"), strict=True):
        assert what in sentence
        assert "shed secret set NAME --host pypi.corp" in sentence


def test_the_token_of_a_registry_stays_on_the_host(tmp_path: Path) -> None:
    """Its address does not."""
    npm = f"registry=https://npm.corp/r/\n//npm.corp/r/:_authToken={SECRET}\n//other/:_authToken={SECRET}\n"
    found = host(tmp_path, own_npm=npm)
    assert found.variables == {"NPM_CONFIG_REGISTRY": "https://npm.corp/r/"}
    assert len(found.left_out) == 1
    assert "npm's token for npm.corp" in found.left_out[0]
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:3141/simple", "--host-port PORT"),
        ("http://localhost:3141/simple", "--host-port PORT"),
        ("http://[::1]/", "--host-port PORT"),
        ('https://a/";x', "no plain address"),
        ("https://[", "no plain address"),
    ],
)
def test_addresses_that_mean_nothing_in_a_shed(tmp_path: Path, url: str, why: str) -> None:
    """They would break what works without."""
    found = host(tmp_path, {"PIP_INDEX_URL": url})
    assert found.variables == {}
    assert why in found.left_out[0]


def test_folders_of_this_machine_are_no_mirrors(tmp_path: Path) -> None:
    """Nobody expects them in a shed, so nothing is said of them."""
    assert host(tmp_path, pip="[global]\nextra-index-url = file:///opt/a /opt/b\n") == Mirrors({}, "", ())


def test_a_file_that_cannot_be_understood(tmp_path: Path) -> None:
    """Is told of; the others count."""
    found = host(tmp_path, pip="index-url=x", own_pip="[global]\nindex-url=https://own/s\n")
    assert found.variables["PIP_INDEX_URL"] == "https://own/s"
    assert "etc/pip.conf cannot be understood" in found.left_out[0]


def test_the_proxy_of_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As apt itself understands its files; with a password it stays."""
    config = tmp_path / "etc/apt/apt.conf.d/50x"
    alone = 'Dir::Etc::parts "/none"; Dir::Etc::main "/none";'
    monkeypatch.setattr(
        "shed.sheds.mirrors.run", lambda command, check: run(command, env={"APT_CONFIG": str(config)}, check=check)
    )
    found = host(tmp_path, apt=alone + 'Acquire { http { Proxy "http://cache:3142"; }; https::Proxy "DIRECT"; };\n')
    assert found == Mirrors({}, 'Acquire::http::Proxy "http://cache:3142";\n', ())
    found = host(tmp_path, apt=f'{alone}Acquire::http::Proxy "http://me:{SECRET}@cache:3142";\n')
    assert found.apt == ""
    assert "apt's proxy, which has credentials" in found.left_out[0]
    assert SECRET not in repr(found)


def test_the_terms_of_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each sentence is in the log once; switched off, nothing is looked at."""
    found = Mirrors({}, "", ("this is why",))
    monkeypatch.setattr(terms, "of_host", lambda environment, home: found)
    with caplog.at_level(logging.WARNING):
        on = Terms(Paths(tmp_path, tmp_path), Settings())
        assert on.mirrors() == on.mirrors() == found
    assert caplog.text.count("this is why") == 1
    assert Terms(Paths(tmp_path, tmp_path), Settings(guest_mirrors=False)).mirrors() == Mirrors({}, "", ())
