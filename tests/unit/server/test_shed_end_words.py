"""`--ttl` and `--restart` as people and programs say them: what the server does of it is tested in `unit/sheds`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from shed import Client
from shed.cli import values
from shed.errors import UsageError
from shed.terminal.output import until as when
from support.servers.running import Running
from support.waiting import wait_until

Shed = Callable[..., subprocess.CompletedProcess[str]]


def runner(server: Running) -> Shed:
    """Return a function that runs the command line."""
    env = {**os.environ, "SHED_SERVER": f"unix://{server.socket}", "HOME": str(server.world.paths.data)}

    def shed(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "shed.cli.main", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done
        return done

    return shed


def test_the_end_of_a_shed_is_shown(server: Running) -> None:
    """When it is made, in the list, by inspect and when it changes; without one, nothing is said of it."""
    shed = runner(server)
    shed("create", "other")
    assert "EXPIRES" not in shed("list").stdout
    made = shed("create", "dev", "--ttl", "2h", "--restart", "always")
    end = json.loads(shed("inspect", "dev", "--json").stdout)["expires_at"]
    assert f"it is deleted in 2 hours, at {end}" in made.stderr
    assert "shed update dev --ttl" in made.stderr
    listed = [line.split("  ") for line in shed("list").stdout.splitlines()]
    column = [cell for cell in map(str.strip, listed[0]) if cell].index("EXPIRES")
    assert [[cell for cell in map(str.strip, line) if cell][column] for line in listed[1:]] == ["in 2 hours", "-"]
    assert ["expires", "at", end] in [line.split() for line in shed("inspect", "dev").stdout.splitlines()]
    assert json.loads(shed("list", "--json").stdout)[0]["restart"] == "always"
    assert "in 7 days" in shed("update", "dev", "--ttl", "7d").stderr
    assert "it is deleted" not in shed("update", "dev", "--ttl", "none").stderr
    assert "expires_at" not in json.loads(shed("inspect", "dev", "--json").stdout)
    assert "restart" not in json.loads(shed("update", "dev", "--restart", "no", "--json").stdout)["shed"]


@pytest.mark.parametrize("words", [["--ttl", "0"], ["--ttl", "-1h"], ["--ttl", "soon"], ["--ttl", "none"]])
def test_times_that_are_none(quiet: Running, words: list[str]) -> None:
    """They are refused before anything is asked."""
    error = runner(quiet)("create", "dev", *words, code=2).stderr
    assert "--ttl: " in error
    assert "hint: write a number and a unit" in error


def test_what_the_server_refuses(quiet: Running) -> None:
    """A thousand years, and a policy that there is not."""
    shed = runner(quiet)
    assert "ten years at most" in shed("create", "dev", "--ttl", "365000d", code=2).stderr
    assert "--restart must be no or always" in shed("create", "dev", "--restart", "unless-stopped", code=2).stderr
    for member, wrong in (("ttl", "1h"), ("ttl", True), ("restart", "sometimes"), ("ttl", -1)):
        status, body = quiet.request("POST", "/api/sheds", json.dumps({"name": "dev", member: wrong}))
        assert (status, json.loads(body)["error"]["code"]) == (400, "INVALID_REQUEST")
    assert quiet.request("GET", "/api/sheds/dev")[0] == 404


def test_a_program_that_dies_leaves_nothing(server: Running) -> None:
    """It asks for a shed for a time, and extends that while it lives.  A block that lasts longer ends as others do."""
    client = Client(f"unix://{server.socket}")
    with client.create("dev", ttl=3600, restart="always") as shed:
        first = shed.info.expires_at
        assert shed.info.restart == "always"
        shed.update(ttl=7200)
        assert shed.info.expires_at > first
        shed.update(ttl=1)
        wait_until(lambda: not server.world.instance("dev").exists())
    assert client.list() == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("7d", 604800), ("none", 0)]
)
def test_times_in_words(text: str, seconds: float) -> None:
    """As everywhere, and none."""
    assert values.duration_or_none(text) == seconds
    if text == "none":
        with pytest.raises(UsageError):
            values.duration(text)


@pytest.mark.parametrize(("timestamp", "says"), [("2000-01-01T00:00:00Z", "now"), ("", "-"), ("soon", "soon")])
def test_ends_in_words(timestamp: str, says: str) -> None:
    """What is past is now; what is no time is shown as it is."""
    assert when(timestamp) == says
