"""The client's configuration: read strictly, written by many at once, and who is meant by it."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from shed.client.address import resolve
from shed.client.config import Config, add_server, load, remember, remove_server, set_default
from shed.errors import UsageError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the configuration in a home of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SHED_SERVER", raising=False)
    return tmp_path / ".shed/config.yaml"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def add(name: str, url: str = "http://127.0.0.1:1", **options: bool) -> None:
    add_server(load(), name, resolve(url), **options)


def test_the_first_server_becomes_the_default(file: Path) -> None:
    """The file is made, for its owner alone; its address is what is found by its name afterwards."""
    add("lab", "ssh://me@lab.example:23")
    add("near", "http://127.0.0.1:8081")
    assert file.stat().st_mode & 0o777 == 0o600
    assert str(resolve()) == "ssh://me@lab.example:23"
    assert (str(resolve("near")), resolve("near").name) == ("http://127.0.0.1:8081", "near")
    assert resolve("local").local
    set_default(load(), "local")
    assert resolve().local
    add("third", "unix:///run/other.sock", default=True)
    assert str(resolve()) == "unix:///run/other.sock"


def test_removing_a_server_forgets_what_was_seen_there(file: Path) -> None:
    """Its sheds, and that it was the default; the user's own section and comments stay."""
    add("lab")
    add("near")
    remember(load(), "lab", {"dev": "running"})
    remember(load(), "near", {"web": "stopped"})
    text = file.read_text() + "# mine\nmine: {a: 1}\n"
    write(file, text)
    assert remove_server(load(), "lab")
    found = load()
    assert (list(found.servers), found.default, list(found.sheds)) == (["near"], None, ["web"])
    assert file.read_text().endswith("# mine\nmine: {a: 1}\n")


@pytest.mark.parametrize("name", ["..", "../..", ".", "/", "a/b", "", "local", ".x", "a" * 64, "a b", "-n"])
def test_names_that_are_none(file: Path, name: str) -> None:
    """Refused for adding and removing alike, and nothing outside or inside the folder is touched."""
    add("lab")
    before = file.read_text()
    with pytest.raises(UsageError) as caught:
        add(name)
    assert caught.value.code == "INVALID_SERVER_NAME"
    with pytest.raises(UsageError):
        remove_server(load(), name)
    assert file.read_text() == before


def test_a_server_that_is_not_there(file: Path) -> None:
    """Named, with the nearest one."""
    add("lab")
    for change in (remove_server, set_default):
        with pytest.raises(UsageError, match="knows no server 'lap'") as caught:
            change(load(), "lap")
        assert caught.value.hint == "did you mean lab?"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("servres: {}", "did you mean 'servers'"),
        ("default-server: x", "did you mean 'default_server'"),
        ("servers: {x: {hots: a}}", "unknown key 'servers.x.hots': did you mean 'host'"),
        ("servers: {x: {host: a, url: 'http://b'}}", "either a host or a url"),
        ("servers: {x: {host: a, http_port: 0}}", "servers.x.http_port must be a port"),
        ("servers: {x: {host: a, ssh_port: yes}}", "servers.x.ssh_port must be a port"),
        ("servers: {x: {url: 'ftp://b'}}", "not the address of a server"),
        ("servers: {..: {host: a}}", "invalid server name"),
        ("servers: {x: {host: a}}\nservers: {}", "servers is there twice"),
        ("default_server: y", "'y', which is none of servers"),
        ("sheds: {dev: {status: running}}", "sheds.dev needs a server"),
        ("sheds: {dev: {server: x, stat: a}}", "did you mean 'status'"),
        ("create_timeout: soon", "not a time"),
    ],
)
def test_mistakes_in_the_file(file: Path, text: str, reason: str) -> None:
    """The file and the key are named; nothing is written over it."""
    write(file, text)
    with pytest.raises(UsageError, match=f"config.yaml.*{reason}") as caught:
        load()
    assert caught.value.code == "INVALID_CONFIG"
    with pytest.raises(UsageError):
        add_server(Config(file), "lab", resolve("http://a"))
    assert file.read_text() == text


def test_a_file_of_the_reference_program_is_read(file: Path) -> None:
    """Times without quotes, and sections of others."""
    write(
        file,
        "servers:\n  lab:\n    host: lab\n    http_port: 8080\n    ssh_port: 2222\n    added_at: 2025-01-01T10:00:00Z\n"
        "default_server: lab\nsheds:\n  dev:\n    server: lab\n    status: running\n    updated_at: "
        "2025-01-01T10:00:00.5Z\n"
        "create_timeout: 10m\ntheirs: {a: 1}\n",
    )
    found = load()
    assert (found.sheds["dev"].server, found.create_timeout) == ("lab", 600.0)
    assert str(resolve(shed="dev")) == "http://lab:8080"


def test_who_is_meant(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option, the environment, where the shed was seen, the default: in this order, and only the last two are
    guesses.
    """
    add("lab", "http://127.0.0.1:1")
    add("near", "http://127.0.0.1:2")
    remember(load(), "near", {"dev": "running"})
    remember(load(), "local", {"own": "running"})
    assert (resolve(shed="dev").name, resolve(shed="dev").guess) == ("near", True)
    assert (resolve(shed="other").name, resolve(shed="other").guess) == ("lab", True)
    assert (resolve(shed="own").local, resolve(shed="own").guess) == (True, True)
    assert (resolve("lab", shed="dev").name, resolve("lab", shed="dev").guess) == ("lab", False)
    monkeypatch.setenv("SHED_SERVER", "lab")
    assert (resolve(shed="dev").name, resolve(shed="dev").guess) == ("lab", False)


def test_what_was_seen_is_written_only_when_it_changed(file: Path) -> None:
    """Listing sheds again and again does not touch the file."""
    add("lab")
    remember(load(), "lab", {"dev": "running"})
    before = file.stat()
    remember(load(), "lab", {"dev": "running"}, gone=["dev", "never"])
    assert file.stat().st_ino == before.st_ino
    remember(load(), "lab", {}, gone=["dev"])
    assert not load().sheds


def test_nothing_is_remembered_without_other_servers(file: Path) -> None:
    """Whoever has one machine never gets a file."""
    remember(load(), "local", {"dev": "running"})
    assert not file.exists()


def test_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    """People keep such files elsewhere; mode and place are kept."""
    kept = tmp_path / "dotfiles.yaml"
    kept.write_text("mine: 1\n")
    kept.chmod(0o640)
    file.parent.mkdir()
    file.symlink_to(kept)
    add("lab")
    assert file.is_symlink()
    assert kept.read_text().startswith("mine: 1\nservers:\n")
    assert kept.stat().st_mode & 0o777 == 0o640


def _many(home: str, first: int) -> None:
    os.environ["HOME"] = home
    for number in range(first, first + 10):
        add(f"server-{number}")


def test_processes_do_not_overwrite_each_other(file: Path, tmp_path: Path) -> None:
    """Four of them add forty servers; all are there, and no temporary file is."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_many, args=(str(tmp_path), first * 10)) for first in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(200)
        assert worker.exitcode == 0
    assert len(load().servers) == 40
    assert sorted(path.name for path in file.parent.iterdir()) == [".config.yaml.lock", "config.yaml"]
