"""Where credentials are found: docker's and podman's files, and credential helpers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shed.errors import DataError, RegistryError, ShedError, UnavailableError
from shed.oci.registry.credentials import Credentials, find_credentials
from shed.oci.registry.reference import parse_reference

APP = parse_reference("reg.example.org:5000/team/app:v1")
HUB = parse_reference("debian")


def auth(user: str, password: str) -> dict[str, str]:
    """Return an entry as `docker login` writes it."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def docker(tmp_path: Path) -> Callable[[object], Path]:
    """Write docker's config.json."""

    def write(config: object) -> Path:
        path = tmp_path / "docker/config.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return path

    return write


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Install a real program as a credential helper."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def install(name: str, script: str) -> None:
        path = folder / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\nread server\n{script}\n")
        path.chmod(0o755)

    return install


@pytest.mark.parametrize(
    "name",
    [
        "reg.example.org:5000",
        "https://reg.example.org:5000",
        "http://reg.example.org:5000/v2/",
        "reg.example.org:5000/team",
        "reg.example.org:5000/team/app",
    ],
)
def test_entries_of_docker(docker: Callable[[object], Path], name: str) -> None:
    """However they are called; podman allows a namespace too."""
    docker({"auths": {name: auth("me", "pass:word"), "example.org": auth("no", "no")}})
    assert find_credentials(APP) == Credentials("me", "pass:word")


@pytest.mark.parametrize(
    "name", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"]
)
def test_entries_of_docker_hub(docker: Callable[[object], Path], name: str) -> None:
    """It has several names."""
    docker({"auths": {name: auth("me", "x")}})
    assert find_credentials(HUB) == Credentials("me", "x")


def test_the_most_specific_entry_wins(docker: Callable[[object], Path]) -> None:
    """As podman has it; an entry of another namespace does not count."""
    host = "reg.example.org:5000"
    docker({"auths": {host: auth("a", "1"), f"{host}/team": auth("b", "2"), f"{host}/tea": auth("c", "3")}})
    assert find_credentials(APP).username == "b"


def test_other_kinds_of_entries(docker: Callable[[object], Path]) -> None:
    """Name and password in clear, identity tokens, registry tokens, and an entry that says nothing."""
    host = "reg.example.org:5000"
    for entry, found in (
        ({"username": "me", "password": "x"}, Credentials("me", "x")),
        ({**auth("me", "x"), "identitytoken": "i"}, Credentials("me", "x", "i")),
        ({"registrytoken": "r"}, Credentials(registry_token="r")),
        ({}, Credentials()),
    ):
        docker({"auths": {host: entry}})
        assert find_credentials(APP) == found
    docker({})
    assert not find_credentials(APP)


def test_the_order_of_the_files(
    docker: Callable[[object], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Podman's, docker's, and the file that is named explicitly; each only when it knows the registry."""
    host = "reg.example.org:5000"
    assert find_credentials(APP) == Credentials()
    podman = tmp_path / "runtime/containers/auth.json"
    podman.parent.mkdir(parents=True)
    podman.write_text(json.dumps({"auths": {host: auth("podman", "x")}}))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    docker({"auths": {"other": auth("docker", "x")}})
    assert find_credentials(APP).username == "podman"
    docker({"auths": {host: auth("docker", "x")}})
    assert find_credentials(APP).username == "docker"
    explicit = tmp_path / "auth.json"
    explicit.write_text(json.dumps({"auths": {host: auth("explicit", "x")}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(explicit))
    assert find_credentials(APP).username == "explicit"


def test_helpers(docker: Callable[[object], Path], helper: Callable[[str, str], None]) -> None:
    """The registry's own one before the general one, before what lies in the file; asked about the host, on standard
    input.
    """
    helper("one", 'echo "{\\"Username\\": \\"$server\\", \\"Secret\\": \\"x\\"}"')
    helper("all", 'echo "{\\"Username\\": \\"<token>\\", \\"Secret\\": \\"$server\\"}"')
    helper("none", "echo credentials not found in native keychain; exit 1")
    host = "reg.example.org:5000"
    docker({"credHelpers": {host: "one"}, "credsStore": "all", "auths": {host: {}}})
    assert find_credentials(APP) == Credentials(host, "x")
    assert find_credentials(HUB) == Credentials(identity_token="https://index.docker.io/v1/")
    docker({"credsStore": "none", "auths": {host: auth("me", "x")}})
    assert find_credentials(APP) == Credentials("me", "x")


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("echo s3cret; echo s3cret >&2; exit 3", RegistryError, "docker-credential-bad failed with exit code 3"),
        ("echo s3cret", RegistryError, "is not a credential"),
        ('echo \'{"Username": "me", "Secret": 7}\'', RegistryError, "is not a credential"),
        (None, UnavailableError, "docker-credential-bad is not installed"),
    ],
)
def test_helpers_that_fail(
    docker: Callable[[object], Path],
    helper: Callable[[str, str], None],
    script: str | None,
    kind: type[ShedError],
    message: str,
) -> None:
    """One sentence, one hint, and nothing of what they printed."""
    if script:
        helper("bad", script)
    docker({"credsStore": "bad"})
    with pytest.raises(kind, match=message) as caught:
        find_credentials(APP)
    assert caught.value.hint
    assert "s3cret" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    "config",
    [
        "s3cret",
        "[]",
        {"auths": {"reg.example.org:5000": {"auth": "s3cret"}}},
        {"credsStore": 5},
        {"credHelpers": []},
        {"credsStore": "../../bin/sh"},
    ],
)
def test_files_that_are_damaged(docker: Callable[[object], Path], config: object) -> None:
    """Told by name, without what is in them."""
    docker(config)
    with pytest.raises(DataError) as caught:
        find_credentials(APP)
    assert "s3cret" not in caught.value.message


def test_auth_in_several_lines(docker: Callable[[object], Path]) -> None:
    """As `base64` breaks it; Go's decoder, and so docker and podman, skip the breaks."""
    text = base64.encodebytes(b"me:" + b"p" * 100).decode()
    assert text.count("\n") > 1
    for breaks in (text, text.replace("\n", "\r\n")):
        docker({"auths": {"reg.example.org:5000": {"auth": breaks}}})
        assert find_credentials(APP) == Credentials("me", "p" * 100)


def test_null_is_nothing(docker: Callable[[object], Path]) -> None:
    """Programs that write the file from a struct leave nulls in it."""
    entry = {**auth("me", "x"), "identitytoken": None, "registrytoken": None, "username": None, "password": None}
    docker(
        {"credsStore": None, "credHelpers": {"reg.example.org:5000": None}, "auths": {"reg.example.org:5000": entry}}
    )
    assert find_credentials(APP) == Credentials("me", "x")
    for nothing in ({"auths": None}, {"auths": {"reg.example.org:5000": None}}, {"credHelpers": None}, "", " \n"):
        docker(nothing)
        assert not find_credentials(APP)
