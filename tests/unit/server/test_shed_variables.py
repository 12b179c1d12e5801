"""Environment variables that sheds are given: told to the guest at each start, and to nobody else."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shed import Client
from shed.sheds import metadata
from support.servers.running import Running

VALUE = "a-value-that-nobody-may-see"


def told(server: Running, name: str) -> list[dict[str, Any]]:
    """Return the variables that the guest was told, at each start."""
    lines = (server.world.instance(name) / "console.log").read_text().splitlines()
    return [json.loads(line)["variables"] for line in lines if line.startswith("{")]


def shed(server: Running, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    home = {"SHED_SERVER": f"unix://{server.socket}", "HOME": str(server.world.paths.data)}
    command = [sys.executable, "-m", "shed.cli.main", *words]
    return subprocess.run(command, env={**os.environ, **home, **env}, capture_output=True, text=True, check=False)


def test_the_guest_is_told_and_nobody_else(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """At each start; answers and the log have the names alone, and one file has the values, for its owner alone."""
    with Client(f"unix://{server.socket}").create("dev", env={"B": VALUE, "A": "ü=\n1"}) as made:
        assert made.info.env == ["A", "B"]
        assert told(server, "dev") == [{"A": "ü=\n1", "B": VALUE}]
        made.stop()
        made.start()
        assert told(server, "dev")[-1] == {"A": "ü=\n1", "B": VALUE}
        for path in ("/api/sheds", "/api/sheds/dev"):
            assert VALUE.encode() not in server.request("GET", path)[1]
        assert VALUE not in repr(metadata.load(server.world.instance("dev")))
        assert VALUE not in caplog.text
        files = [path for path in server.world.paths.data.rglob("*") if path.is_file()]
        holders = {path.name for path in files if VALUE.encode() in path.read_bytes()}
        assert holders == {"metadata.json", "console.log", "console.before.log"}  # a real guest shows nothing there
        mode = (server.world.instance("dev") / "metadata.json").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600


def test_the_record_of_a_shed_without_is_as_it_always_was(server: Running) -> None:
    """So is its answer."""
    for name, env in (("a", None), ("b", {})):
        status, body = server.request("POST", "/api/sheds", json.dumps({"name": name, "env": env}))
        assert status == 201
        assert "env" not in json.loads(body)
        assert "variables" not in json.loads((server.world.instance(name) / "metadata.json").read_text())


@pytest.mark.parametrize(
    "env",
    [
        ["A=1"],
        {"A": 1},
        {"": VALUE},
        {"A=B": VALUE},
        {"A B": VALUE},
        {"A\n": VALUE},
        {"A\0": VALUE},
        {"A": f"{VALUE}\0"},
        {"A": f"{VALUE}\0\n"},
        {"A": VALUE * 4000},
        {f"A{number}": VALUE for number in range(1001)},
        {f"A{number}": "x" * 60000 for number in range(3)},
    ],
)
def test_what_is_no_variable_is_refused(quiet: Running, env: object) -> None:
    """In one sentence, which does not tell values; nothing is made."""
    status, body = quiet.request("POST", "/api/sheds", json.dumps({"name": "a", "env": env}))
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "INVALID_REQUEST")
    assert error["message"].startswith(("env must be an object of 1000 members at most: ", "the environment variables"))
    assert VALUE.encode() not in body
    assert quiet.request("GET", "/api/sheds/a")[0] == 404


def test_half_a_character_is_no_text(quiet: Running) -> None:
    """JSON can write what UTF-8 cannot."""
    status, body = quiet.request("POST", "/api/sheds", '{"name": "a", "env": {"A": "\\udcff"}}')
    assert (status, json.loads(body)["error"]["code"]) == (400, "INVALID_REQUEST")


def test_variables_come_from_the_command_line(server: Running, tmp_path: Path) -> None:
    """From its words, a file and the environment, as docker takes them; -e wins over a file."""
    file = tmp_path / "env"
    file.write_text("# a comment\nA=file\nB=file\nHERE\nNOWHERE\n")
    done = shed(server, "create", "dev", "-e", "B=word", "--env-file", str(file), "-e", "ALSO", HERE="1", ALSO="x=y")
    assert done.returncode == 0, done.stderr
    assert told(server, "dev") == [{"A": "file", "B": "word", "HERE": "1", "ALSO": "x=y"}]
    assert "ALSO, B, HERE" in shed(server, "inspect", "dev").stdout


def test_they_can_be_changed(server: Running) -> None:
    """Set, added and taken away; the guest is told, and the limits hold for all of them together."""
    shed(server, "create", "dev", "-e", "A=1", "-e", "B=2")
    done = shed(server, "update", "dev", "-e", "A=3", "-e", "C=4", "--no-env", "B", "--no-env", "NONE")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(shed(server, "inspect", "--json", "dev").stdout)["env"] == ["A", "C"]
    many = json.dumps({"env": {f"A{number}": "" for number in range(1000)}})
    assert server.request("POST", "/api/sheds/dev/update", many)[0] == 400
    status, body = server.request("POST", "/api/sheds/dev/update", json.dumps({"env": {"A": 1}}))
    assert (status, json.loads(body)["error"]["code"]) == (400, "INVALID_REQUEST")
    shed(server, "restart", "dev")
    assert told(server, "dev")[-1] == {"A": "3", "C": "4"}


@pytest.mark.parametrize("words", [["-e", "=x"], ["-e", "A B"], ["--env-file", "/nowhere"], ["-e", "BAD"]])
def test_wrong_words_make_nothing(quiet: Running, words: list[str]) -> None:
    """They are refused before anything is asked; so are bytes that are no text."""
    done = shed(quiet, "create", "dev", *words, BAD=os.fsdecode(b"\xff"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
