"""Secrets as the server keeps them, and where their values come from."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from shed.egress.rules.limits import Limits
from shed.egress.secrets import secretvalue
from shed.egress.secrets.secretstore import SecretStore, Source
from shed.egress.secrets.secretvalue import Values
from shed.errors import DataError, NotFoundError, ShedError, UnavailableError, UsageError

VALUE = "sk-a-value-that-nobody-may-see"
KEY: dict[str, Any] = {"hosts": ["API.example.com"], "value": VALUE}


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    """An empty store."""
    return SecretStore(tmp_path / "secrets")


def value_of(store: SecretStore, **source: str) -> str:
    """Return the value of a secret that comes from there."""
    return Values().of(store.set("key", {"hosts": ["api.example.com"], **source}))


def test_a_secret_is_kept_for_its_user_alone(store: SecretStore, tmp_path: Path) -> None:
    """As it was given, with a variable of its name; what shows it has no value."""
    limits = {"methods": ["GET"], "paths": ["/repos/me/*"]}
    header = ["Authorization", "Bearer {}"]
    made = store.set("api-key", {**KEY, **limits, "header": header})
    assert store.get("api-key") == made
    assert (made.variable, made.hosts, made.header) == ("API_KEY", ("api.example.com",), tuple(header))
    assert made.limits == Limits(("GET",), ("/repos/me/*",))
    assert made.source == Source("value", VALUE)
    assert VALUE not in f"{made!r}{made.shown()}"
    path = tmp_path / "secrets/api-key.json"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]


def test_a_new_value_leaves_the_rest(store: SecretStore) -> None:
    """Without hosts only the value is changed; with them, all of it."""
    store.set("key", {**KEY, "methods": ["GET"], "variable": "OTHER"})
    changed = store.set("key", {"from_file": "/run/key"})
    assert (changed.source, changed.variable, changed.limits.methods) == (
        Source("from_file", "/run/key"),
        "OTHER",
        ("GET",),
    )
    assert store.set("key", KEY).limits == Limits()
    with pytest.raises(NotFoundError, match="no secret 'another'"):
        store.set("another", {"value": VALUE})
    with pytest.raises(UsageError, match="methods goes with hosts"):
        store.set("key", {"value": VALUE, "methods": ["GET"]})


def test_what_is_removed_is_gone(store: SecretStore) -> None:
    """And what there is not cannot be removed, whatever its name."""
    store.set("key", KEY)
    store.remove("key")
    for name in ("key", "../secrets/key", ""):
        with pytest.raises(NotFoundError):
            store.remove(name)
        with pytest.raises(NotFoundError):
            store.get(name)
    assert store.all() == ([], [])


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("Key", {}, "small letters"),
        ("../key", {}, "small letters"),
        ("key", {"variable": "A B"}, "environment variable"),
        ("key", {"variable": "PATH"}, "environment variable"),
        ("key", {"hosts": []}, "hosts"),
        ("key", {"hosts": ["http://x"]}, "neither the name of a host"),
        ("key", {"header": ["Authorization", "Bearer"]}, "one {}"),
        ("key", {"methods": ["get it"]}, "not a method"),
        ("key", {"paths": ["repos"]}, "not a path"),
        ("key", {"value": "short"}, "8 to 8192"),
        ("key", {"value": f"{VALUE}\nX: y"}, "one line"),
        ("key", {"value": None}, "exactly one of"),
        ("key", {"from_file": "/key"}, "exactly one of"),
        ("key", {"value": None, "from_file": "key"}, "absolute"),
        ("key", {"value": None, "from_env": "A-B"}, "environment variable"),
        ("key", {"value": None, "from_command": "  "}, "1 to 4096"),
        ("key", {"value": None, "from_command": "a\0b"}, "1 to 4096"),
    ],
)
def test_what_makes_no_sense_is_refused(store: SecretStore, name: str, change: dict[str, Any], words: str) -> None:
    """When it is set, with a sentence that names the member, and never has the value."""
    with pytest.raises(UsageError, match=words) as caught:
        store.set(name, {**KEY, **change})
    assert caught.value.code == "INVALID_SECRET"
    assert VALUE not in str(caught.value)
    assert store.all() == ([], [])


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"hosts": ["a.b"], "value": "x\\u0007' + VALUE + '"}'])
def test_a_damaged_secret_is_told_without_its_value(store: SecretStore, tmp_path: Path, damage: str) -> None:
    """It becomes a warning in the list, and the others are there."""
    store.set("key", KEY)
    store.set("other", KEY)
    (tmp_path / "secrets/key.json").write_text(damage)
    found, warnings = store.all()
    assert [each.name for each in found] == ["other"]
    assert "damaged" in warnings[0]
    with pytest.raises(DataError) as caught:
        store.get("key")
    assert VALUE not in f"{warnings}{caught.value}{caught.value.__context__}"


def test_values_come_from_everywhere(store: SecretStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given, from a file, from the server's environment, from a command; the end of the line is none of it."""
    (tmp_path / "key").write_text(f"{VALUE}\r\n")
    monkeypatch.setenv("THE_KEY", VALUE)
    assert value_of(store, value=VALUE) == VALUE
    assert value_of(store, from_file=str(tmp_path / "key")) == VALUE
    assert value_of(store, from_env="THE_KEY") == VALUE
    assert value_of(store, from_command='printf "%s\\n" "$THE_KEY"; echo noise >&2') == VALUE


def test_a_command_runs_once_for_a_while(store: SecretStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then again, and at once when the secret was given another."""
    count = tmp_path / "count"
    command = f"echo x >>{count}; echo {VALUE}-$(wc -l <{count} | tr -d ' ')"
    times = [0.0]
    values, key = Values(lambda: times[0]), store.set("key", {"hosts": ["a.example.com"], "from_command": command})
    assert [values.of(key), values.of(key)] == [f"{VALUE}-1"] * 2
    assert values.of(store.set("key", {"from_command": f"true; {command}"})) == f"{VALUE}-2"
    times[0] += secretvalue.LIFE + 1
    assert values.of(store.get("key")) == f"{VALUE}-3"


def test_what_cannot_be_had_is_told_without_a_part_of_it(
    store: SecretStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, no variable, a command that fails, prints too much, nothing, binary, or does not end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(VALUE.encode() + b"\xff\n")
    (tmp_path / "lines").write_text(f"{VALUE}\n{VALUE}\n")
    monkeypatch.setattr(secretvalue, "TIME", 0.5)
    for source, words in (
        ({"from_file": str(tmp_path / "none")}, "No such file"),
        ({"from_file": str(tmp_path)}, "not a file|Is a directory"),
        ({"from_file": str(tmp_path / "pipe")}, "not a file"),
        ({"from_file": str(tmp_path / "binary")}, "printable"),
        ({"from_file": str(tmp_path / "lines")}, "one line"),
        ({"from_file": "/dev/zero"}, "not a file"),
        ({"from_env": "SHED_TEST_NO_SUCH"}, "no environment variable"),
        ({"from_command": f"echo {VALUE}; exit 3"}, "exit code 3"),
        ({"from_command": "true"}, "printable"),
        ({"from_command": f"yes {VALUE}"}, "more than"),
        ({"from_command": f"echo {VALUE}; sleep 1000"}, "did not end"),
        ({"from_command": f"echo {VALUE}; sleep 1000 & sleep 1000"}, "did not end"),
        ({"from_command": "/no/such/program"}, "exit code 127"),
    ):
        with pytest.raises(UnavailableError, match=words) as caught:
            value_of(store, **source)
        assert caught.value.code == "SECRET_UNAVAILABLE"
        assert VALUE not in f"{caught.value}"


def test_what_failed_is_tried_again(store: SecretStore, tmp_path: Path) -> None:
    """A command that failed is not run again at once, but soon."""
    times = [0.0]
    values, path = Values(lambda: times[0]), tmp_path / "key"
    key = store.set("key", {"hosts": ["a.example.com"], "from_command": f"cat {path}"})
    with pytest.raises(ShedError):
        values.of(key)
    path.write_text(VALUE)
    with pytest.raises(ShedError):
        values.of(key)
    times[0] += secretvalue.LIFE_OF_FAILURE + 1
    assert values.of(key) == VALUE
