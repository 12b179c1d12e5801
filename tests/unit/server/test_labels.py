"""Labels of sheds: kept as they are given, shown, and chosen by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from shed import Client
from shed.sheds import metadata
from support.servers.running import Running


def made(server: Running, name: str, labels: dict[str, Any] | None) -> dict[str, Any]:
    status, body = server.request("POST", "/api/sheds", json.dumps({"name": name, "labels": labels}))
    assert status == 201, body
    shed = json.loads(body)
    assert isinstance(shed, dict)
    return shed


def test_labels_are_kept_and_shown(server: Running) -> None:
    """In the answer, in the record, and when the shed has stopped; without any the record is as it always was."""
    labels = {"team": "web", "ci/run": "17 ü", "empty": ""}
    assert made(server, "a", labels)["labels"] == labels
    assert "labels" not in made(server, "b", None)
    assert "labels" not in made(server, "c", {})
    server.request("POST", "/api/sheds/a/stop")
    assert json.loads(server.request("GET", "/api/sheds/a")[1])["labels"] == labels
    assert metadata.load(server.world.instance("a")).labels == labels
    for name in ("b", "c"):
        assert "labels" not in json.loads((server.world.instance(name) / "metadata.json").read_text())


def test_sheds_are_chosen_by_label(server: Running) -> None:
    """By its name, or by its name and value."""
    made(server, "a", {"team": "web", "x": "1"})
    made(server, "b", {"team": "db"})
    made(server, "c", None)

    def names(label: str) -> list[str]:
        return [shed["name"] for shed in json.loads(server.request("GET", f"/api/sheds?label={label}")[1])["sheds"]]

    assert names("team") == ["a", "b"]
    assert names("team=db") == ["b"]
    assert names("team=") == []
    assert names("web") == []


@pytest.mark.parametrize(
    "labels",
    [
        ["team"],
        "team=web",
        {"team": 1},
        {"team": None},
        {"": "x"},
        {"a b": "x"},
        {"a\n": "x"},
        {"-a": "x"},
        {"a" * 64: "x"},
        {"a": "x" * 256},
        {f"a{number}": "x" for number in range(65)},
    ],
)
def test_labels_are_short_texts(quiet: Running, labels: object) -> None:
    """What is wrong is told in one sentence; nothing is made."""
    status, body = quiet.request("POST", "/api/sheds", json.dumps({"name": "a", "labels": labels}))
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "INVALID_REQUEST")
    assert error["message"].startswith("labels must be an object of 64 members at most: ")
    assert quiet.request("GET", "/api/sheds/a")[0] == 404


def test_a_record_with_damaged_labels_is_told(server: Running) -> None:
    """As one with any other damage."""
    made(server, "a", {"team": "web"})
    record = server.world.instance("a") / "metadata.json"
    values = json.loads(record.read_text())
    for wrong in ({"team": 1}, ["team"], "team"):
        record.write_text(json.dumps({**values, "labels": wrong}))
        with pytest.raises(metadata.DamagedError, match="labels is not dict"):
            metadata.load(record.parent)
    record.write_text(json.dumps(values))


def test_labels_come_from_the_sdk(server: Running) -> None:
    """As they are given, and back."""
    with Client(f"unix://{server.socket}").create("a", labels={"team": "web"}) as shed:
        assert shed.info.labels == {"team": "web"}


def test_labels_come_from_the_command_line(server: Running) -> None:
    """Each ``--label`` is one; one without a value is refused before anything is asked."""
    env = {**os.environ, "SHED_SERVER": f"unix://{server.socket}", "HOME": str(server.world.paths.data)}
    command = [sys.executable, "-m", "shed.cli.main", "create", "a", "--label", "team=web", "--label", "x=a=b"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    words = [sys.executable, "-m", "shed.cli.main", "list", "--json"]
    (shed,) = json.loads(subprocess.run(words, env=env, check=True, capture_output=True).stdout)
    assert shed["labels"] == {"team": "web", "x": "a=b"}
    done = subprocess.run([*command[:4], "b", "--label", "team"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "a label is KEY=VALUE" in done.stderr


def test_labels_change(server: Running) -> None:
    """Set, added and taken away by `shed update`; no more than a new shed may have."""
    made(server, "a", {"team": "web", "x": "1"})
    words = [sys.executable, "-m", "shed.cli.main", "update", "a", "--label", "x=2", "--label", "y=", "--no-label"]
    env = {**os.environ, "SHED_SERVER": f"unix://{server.socket}", "HOME": str(server.world.paths.data)}
    done = subprocess.run([*words, "team"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert metadata.load(server.world.instance("a")).labels == {"x": "2", "y": ""}
    more = json.dumps({"labels": {f"l{number}": "" for number in range(63)}})
    status, body = server.request("POST", "/api/sheds/a/update", more)
    assert (status, "64 at most" in json.loads(body)["error"]["hint"]) == (400, True)
    assert server.request("POST", "/api/sheds/a/update", '{"no_labels": ["x", "y", "none"]}')[0] == 200
    assert metadata.load(server.world.instance("a")).labels is None
