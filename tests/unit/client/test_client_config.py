"""The client's configuration: what a person wrote is read strictly, what commands note is written by many at once, and
who is meant by both.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from shed.client import config, config_yaml
from shed.client.config import Config, load, resolve
from shed.client.config_state import add_server, remember, remove_server, set_default
from shed.errors import UsageError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the configuration in a home of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SHED_SERVER", raising=False)
    return tmp_path / ".shed/config.yaml"


def state(file: Path) -> Path:
    """Return where commands note things."""
    return file.with_name("config.state.json")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def add(name: str, url: str = "http://127.0.0.1:1", **options: bool) -> None:
    add_server(load(), name, resolve(url), **options)


def test_the_first_server_becomes_the_default(file: Path) -> None:
    """It is noted for its owner alone; its address is what is found by its name afterwards."""
    add("lab", "ssh://me@lab.example:23")
    add("near", "http://127.0.0.1:8081")
    assert state(file).stat().st_mode & 0o777 == 0o600
    assert not file.exists()
    assert str(resolve()) == "ssh://me@lab.example:23"
    assert (str(resolve("near")), resolve("near").name) == ("http://127.0.0.1:8081", "near")
    assert resolve("local").local
    set_default(load(), "local")
    assert resolve().local
    add("third", "unix:///run/other.sock", default=True)
    assert str(resolve()) == "unix:///run/other.sock"


def test_removing_a_server_forgets_what_was_seen_there(file: Path) -> None:
    """Its sheds, and that it was the default."""
    add("lab")
    add("near")
    remember(load(), "lab", {"dev": "running"})
    remember(load(), "near", {"web": "stopped"})
    assert remove_server(load(), "lab")
    found = load()
    assert (list(found.servers), found.default, list(found.sheds)) == (["near"], None, ["web"])


WRITTEN = """\
# mine
servers:
  lab: {host: lab.example}
  near: {host: 127.0.0.1, http_port: 81}
default_server: lab
mine: 1
"""


def addresses() -> dict[str, str]:
    return {name: str(entry.address) for name, entry in load().servers.items()}


def test_commands_change_what_a_person_wrote_without_touching_the_file(file: Path) -> None:
    """Replaced, removed and chosen servers count at once; the file stays as it is."""
    write(file, WRITTEN)
    add("lab", "http://127.0.0.1:1")
    assert not remove_server(load(), "near")
    add("third", "http://127.0.0.1:3")
    assert addresses() == {"lab": "http://127.0.0.1:1", "third": "http://127.0.0.1:3"}
    set_default(load(), "third")
    assert load().default == "third"
    assert remove_server(load(), "third")
    assert load().default is None
    set_default(load(), "lab")
    assert (load().default, file.read_text()) == ("lab", WRITTEN)


def test_an_edit_of_the_file_counts_more_than_an_earlier_command(file: Path) -> None:
    """The last word holds, entry by entry: a server, one that was removed, the default."""
    write(file, WRITTEN)
    add("lab", "http://127.0.0.1:1")
    remove_server(load(), "near")
    add("third", "http://127.0.0.1:3", default=True)
    write(file, WRITTEN.replace("lab.example", "lab.new"))
    assert addresses() == {"lab": "http://lab.new:8080", "third": "http://127.0.0.1:3"}
    assert load().default == "third"
    write(file, WRITTEN.replace("81", "82").replace("default_server: lab", "default_server: near"))
    assert addresses() == {"lab": "http://127.0.0.1:1", "near": "http://127.0.0.1:82", "third": "http://127.0.0.1:3"}
    assert load().default == "near"
    set_default(load(), "third")
    assert set(json.loads(state(file).read_text())["servers"]) == {"lab", "third"}, "what does not count is dropped"
    write(file, "")
    assert (addresses(), load().default) == ({"third": "http://127.0.0.1:3"}, None)


@pytest.mark.parametrize("name", ["..", "../..", ".", "/", "a/b", "", "local", ".x", "a" * 64, "a b", "-n"])
def test_names_that_are_none(file: Path, name: str) -> None:
    """Refused for adding and removing alike, and nothing outside or inside the folder is touched."""
    add("lab")
    before = state(file).read_text()
    with pytest.raises(UsageError) as caught:
        add(name)
    assert caught.value.code == "INVALID_SERVER_NAME"
    with pytest.raises(UsageError):
        remove_server(load(), name)
    assert state(file).read_text() == before


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
        ("dotfiles: [a]", "dotfiles must be the URL"),
        ("a: {", "not YAML"),
        ("[1]", "keys and values"),
        ("default_server: [1]", "none of servers"),
        ("? [1]\n: 2", "unhashable key"),
    ],
)
def test_mistakes_in_the_file(file: Path, text: str, reason: str) -> None:
    """The file and the key are named; nothing is written over it."""
    write(file, text)
    with pytest.raises(UsageError, match=f"config.yaml.*{reason}") as caught:
        load()
    assert caught.value.code == "INVALID_CONFIG"
    with pytest.raises(UsageError):
        add_server(Config(str(file)), "lab", resolve("http://a"))
    assert file.read_text() == text
    assert not state(file).exists()


def test_a_file_of_the_reference_program_is_read(file: Path) -> None:
    """Times without quotes, and sections of others."""
    write(
        file,
        "servers:\n  lab:\n    host: lab\n    http_port: 8080\n    ssh_port: 2222\n    added_at: 2025-01-01T10:00:00Z\n"
        "default_server: lab\nsheds:\n  dev:\n    server: lab\n    status: running\n    updated_at: "
        "2025-01-01T10:00:00.5Z\n"
        "create_timeout: 10m\ntheirs: {a: 1}\ndotfiles: me/dotfiles\n",
    )
    found = load()
    assert (found.sheds["dev"].server, found.create_timeout, found.dotfiles) == ("lab", 600.0, "me/dotfiles")
    assert str(resolve(shed="dev")) == "http://lab:8080"


def test_what_an_earlier_version_saw_is_taken_over(file: Path) -> None:
    """With the first note; from then on what the old file says of sheds does not count any more."""
    write(file, "servers: {lab: {host: lab}, near: {host: near}}\nsheds: {dev: {server: lab}, web: {server: near}}\n")
    remember(load(), "lab", {"dev": "running"}, gone=["web"])
    assert {name: (entry.server, entry.status) for name, entry in load().sheds.items()} == {
        "dev": ("lab", "running"),
        "web": ("near", ""),
    }
    remember(load(), "near", {}, gone=["web"])
    assert list(load().sheds) == ["dev"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"servers": []}',
        '{"servers": {"a": {}}}',
        '{"servers": {"a": {"url": 1, "over": null}}}',
        '{"servers": {"a": {"url": "x", "over": null}}}',
        '{"sheds": {"a": 1}}',
        '{"default_server": "a"}',
    ],
)
def test_a_state_that_shed_did_not_write(file: Path, text: str) -> None:
    """Is refused with its name, by every command; nothing is written over it."""
    write(file, "servers: {lab: {host: lab}}")
    state(file).write_text(text)
    for act in (resolve, lambda: set_default(Config(str(file)), "lab")):
        with pytest.raises(UsageError, match=r"config\.state\.json") as caught:
            act()
        assert caught.value.code == "INVALID_CONFIG"
    assert state(file).read_text() == text


def test_the_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it changes: in its content, or for another file in its place; a cache that is broken is none."""
    reads = []

    def read(path: str) -> dict[str, Any]:
        reads.append(path)
        return config_yaml_read(path)

    config_yaml_read = config_yaml.read
    monkeypatch.setattr(config_yaml, "read", read)
    monkeypatch.setattr(config, "_RACY_NS", -1)
    cache = file.with_name(".config.yaml.cache")
    write(file, WRITTEN)
    assert addresses() == addresses()
    assert len(reads) == 1
    file.write_text(WRITTEN.replace("lab.example", "lab.exbmple"))
    assert addresses()["lab"] == "http://lab.exbmple:8080"
    assert len(reads) == 2
    other = file.with_name("other")
    other.write_text(WRITTEN)
    other.replace(file)
    assert addresses()["lab"] == "http://lab.example:8080"
    assert len(reads) == 3
    for broken in ("", "[]", "{}", json.dumps({**json.loads(cache.read_text()), "says": {"servers": {"a": 1}}})):
        cache.write_text(broken)
        assert addresses()["lab"] == "http://lab.example:8080"
    assert len(reads) == 7
    assert cache.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_just_written_is_not_cached(file: Path) -> None:
    """Its next change could have the same time."""
    write(file, WRITTEN)
    os.utime(file, (0, 0))
    load()
    assert not file.with_name(".config.yaml.cache").exists()


def test_a_folder_that_takes_no_cache(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is no reason to fail."""
    monkeypatch.setattr(config, "_RACY_NS", -1)
    write(file, WRITTEN)
    file.with_name(".config.yaml.cache").mkdir()
    assert addresses()["lab"] == "http://lab.example:8080"


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
    before = state(file).stat()
    remember(load(), "lab", {"dev": "running"}, gone=["dev", "never"])
    assert state(file).stat().st_ino == before.st_ino
    remember(load(), "lab", {}, gone=["dev"])
    assert not load().sheds


def test_nothing_is_remembered_without_other_servers(file: Path) -> None:
    """Whoever has one machine never gets a file."""
    remember(load(), "local", {"dev": "running"})
    assert not file.parent.exists()


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
    assert sorted(path.name for path in file.parent.iterdir()) == [".config.state.json.lock", "config.state.json"]
