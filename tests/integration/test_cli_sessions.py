"""`shed sessions`, `shed sessions kill` and `shed exec -S` with the real server and tmux; the sheds are processes of
this machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.servers.fake_server import fake_server
from support.servers.world import World
from support.vms.machine import command_line
from support.waiting import wait_until

SHED = [sys.executable, "-m", "shed.cli.main"]


class User:
    """Somebody with a shed ``dev``, and a tmux of the test's own."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env

    def shed(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        done = subprocess.run(
            [*SHED, *words], env=self.env, input="", capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done
        return done

    def json(self, *words: str) -> Any:
        """Run the command line and return its machine output."""
        return json.loads(self.shed("--json", *words).stdout)

    def tmux(self, *words: str) -> str:
        """Run tmux as in the shed."""
        return subprocess.run(["tmux", *words], env=self.env, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    """A user whose sheds see a tmux of their own."""
    sockets = tmp_path / "tmux"
    sockets.mkdir()
    monkeypatch.setenv("TMUX_TMPDIR", str(sockets))
    monkeypatch.delenv("TMUX", raising=False)
    with fake_server(tmp_path) as env:
        user = User(env)
        user.shed("create", "dev", "--image", "base")
        yield user
        subprocess.run(["tmux", "kill-server"], env=env, capture_output=True, check=False)


def test_sessions_are_listed_and_ended(user: User) -> None:
    """None, some, one fewer; what is not there is named."""
    assert user.json("sessions", "dev") == user.json("sessions") == []
    user.tmux("new-session", "-d", "-s", "build", "cat")
    user.tmux("new-session", "-d", "-s", "a b", "cat")  # made in the shed, by its own rules
    found = user.json("sessions", "dev")
    assert [(session["name"], session["shed"], session["attached"], session["windows"]) for session in found] == [
        ("a b", "dev", 0, 1),
        ("build", "dev", 0, 1),
    ]
    assert user.json("sessions") == found
    shown = user.shed("sessions").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["SHED", "dev", "dev"]
    assert user.json("sessions", "kill", "dev", "build")["shed"] == "dev"
    assert [session["name"] for session in user.json("sessions")] == ["a b"]
    gone = user.shed("sessions", "kill", "dev", "build", code=1)
    assert gone.stderr.startswith("error: shed 'dev' has no session 'build'\nhint: ")
    assert "invalid session name 'buil*'" in user.shed("sessions", "kill", "dev", "buil*", code=2).stderr
    assert (
        "no session 'bui'" in user.shed("sessions", "kill", "dev", "bui", code=1).stderr
    )  # not the one that begins so


def test_a_stopped_shed_is_not_started_to_look(user: User) -> None:
    """It has no sessions; asked for it alone, that is an error."""
    user.shed("stop", "dev")
    assert user.json("sessions") == []
    refused = user.shed("sessions", "dev", code=1)
    assert refused.stderr.startswith("error: shed 'dev' is not running\n")
    assert user.json("list")[0]["status"] == "stopped"


def test_a_shed_that_does_not_answer_is_a_warning(user: User, tmp_path: Path) -> None:
    """The sessions of the others are listed all the same."""
    user.tmux("new-session", "-d", "-s", "build", "cat")
    broken = World(tmp_path).instance("broken")
    broken.mkdir()
    (broken / "metadata.json").write_text("{")
    done = user.shed("sessions", "--json")
    assert [session["name"] for session in json.loads(done.stdout)] == ["build"]
    assert "broken" in json.loads(done.stderr)["warning"]


def test_all_servers_are_asked(user: User, tmp_path: Path) -> None:
    """Each session names its server; one that is down is told, and makes the command fail."""
    user.tmux("new-session", "-d", "-s", "build", "cat")
    config = tmp_path / "servers.yaml"
    config.write_text("servers: {here: {host: 127.0.0.1, http_port: 1}}")
    done = user.shed("sessions", "--all", "--json", "-c", str(config), code=1)
    assert [(session["server"], session["name"]) for session in json.loads(done.stdout)] == [("local", "build")]
    assert json.loads(done.stderr)["warning"].startswith("here: ")
    assert "all servers" in user.shed("sessions", "--all", "dev", code=2).stderr


WORDS = [
    "a b",
    "$HOME",
    "`id`",
    "$(id)",
    "it's",
    'say "so"',
    "new\nline",
    "üñ😀",
    "",
    "*",
    "\\",
    "a;b",
    "end;",
    "end\\;",
    ";",
    "#{version}",
    "%H",
    "-d",
]


def test_exec_in_a_session_takes_words_as_they_are(user: User, tmp_path: Path) -> None:
    """No shell and no tmux takes them apart; the session is made when it is missing, and each command has a window of
    its own.
    """
    out, place = tmp_path / "out", tmp_path / "odd #{pid} place;"
    place.mkdir()
    script = """
import json, os, sys
with open(sys.argv[1] + ".new", "w") as file:
    json.dump([sys.argv[2:], os.environ["A"], os.getcwd()], file)
os.rename(file.name, sys.argv[1])"""
    command = [sys.executable, "-c", script, str(out), *WORDS]
    for window in ("1", "2"):
        told = user.json("exec", "-e", "A=b c;", "-w", str(place), "dev", "-S", "build", "--", *command)
        assert (told["session"], told["window"]) == ("build", window)
        wait_until(out.exists)
        assert json.loads(out.read_text()) == [WORDS, "b c;", str(place)]
        out.unlink()


def test_the_output_of_a_command_in_a_session_stays(user: User) -> None:
    """Also when it ended at once."""
    said = user.shed("exec", "-S", "build", "dev", "--", "sh", "-c", "echo all done; exit 3").stdout
    assert said == "running in window 1 of session build; to see it: shed attach dev -S build\n"
    process = Path("/proc", user.tmux("display", "-p", "-t", "=build:1", "#{pane_pid}").strip())
    wait_until(lambda: not command_line(process))  # tmux 3.3 does not always notice, and never calls the pane dead then
    wait_until(lambda: "all done" in user.tmux("capture-pane", "-p", "-t", "=build:1"))


def test_exec_in_a_session_refuses(user: User) -> None:
    """What cannot be a session, and a terminal of its own; the code is that of a command that could not be run."""
    assert "invalid session name 'a:b'" in user.shed("exec", "-S", "a:b", "dev", "--", "true", code=2).stderr
    assert "leave out -t" in user.shed("exec", "-t", "-S", "a", "dev", "--", "true", code=2).stderr
    assert "a shed, and nothing else" in user.shed("console", "-S", "a", "dev", code=2).stderr
    assert "no shed 'nope'" in user.shed("exec", "-S", "a", "nope", "--", "true", code=125).stderr


def test_attach_needs_a_terminal(user: User) -> None:
    """And says what does not."""
    assert "shed exec dev -S SESSION -- COMMAND" in user.shed("attach", "dev", code=2).stderr


def test_an_image_without_tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, with a code; such a shed has no sessions."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tools))
    with fake_server(tmp_path) as env:
        user = User(env)
        user.shed("create", "dev", "--image", "base")
        assert user.json("sessions") == []
        refused = json.loads(user.shed("sessions", "dev", "--json", code=1).stderr)["error"]
        assert (refused["code"], refused["message"]) == ("TMUX_NOT_AVAILABLE", "the image of shed 'dev' has no tmux")
        assert "shed console dev" in refused["hint"]
        refused = json.loads(user.shed("exec", "-S", "a", "--json", "dev", "--", "true", code=125).stderr)["error"]
        assert refused["code"] == "TMUX_NOT_AVAILABLE"
