"""The real `shed` against the real server: the API as the command line uses it, and starting the local server.

VMs are the fake backend's; what a healthy server never does is scripted.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.client.execution import Execution
from shed.client.sync.api import Api
from shed.errors import ConflictError, NotFoundError
from shed.progress import Event, PhaseEvent
from shed.version import VERSION
from support.servers.fake_server import fake_server
from support.servers.scripted_server import Conversation, ScriptedServer
from support.vms.machine import command_line

SHED = [sys.executable, "-m", "shed.cli.main"]
Shed = Callable[..., subprocess.CompletedProcess[str]]


def runner(env: dict[str, str]) -> Shed:
    """Return a function that runs `shed` in an environment."""

    def shed(*words: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*SHED, *words], env=env, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done

    return shed


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    """`shed`, with a server that runs fake VMs."""
    with fake_server(tmp_path) as env:
        yield runner(env)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shed]:
    """The same, for tests that change nothing."""
    with fake_server(tmp_path_factory.mktemp("shared")) as env:
        yield runner(env)


def test_the_life_of_a_shed(shed: Shed) -> None:
    """Create, run, list, stop, start, show the console, delete: each with its sentence and its object."""
    created = shed("create", "dev", "--cpus", "1", "--memory", "512M", "--upper-size", "2G")
    assert created.stdout.startswith("created dev in ")
    assert len(created.stderr.splitlines()) > 1  # one plain line per phase
    assert shed("exec", "dev", "--", "sh", "-c", "cat; echo err >&2; exit 3", stdin="in\n", code=3).stdout == "in\n"
    listed = shed("list", "-v").stdout.splitlines()
    assert listed[0].split() == [
        "NAME",
        "STATUS",
        "IMAGE",
        "CPUS",
        "MEMORY",
        "CREATED",
        "PID",
        "UPPER",
        "WORKSPACE",
        "DIGEST",
    ]
    assert listed[1].split()[:6] == ["dev", "running", "base", "1", "512", "MiB"]
    (wire,) = json.loads(shed("--json", "ls").stdout)
    assert (wire["name"], wire["status"], wire["memory_mb"], wire["upper_size_bytes"]) == (
        "dev",
        "running",
        512,
        2 << 30,
    )
    stopped = json.loads(shed("stop", "dev", "--json").stdout)
    assert (stopped["status"], stopped["action"], stopped["name"], stopped["shed"]["status"]) == (
        "ok",
        "stop",
        "dev",
        "stopped",
    )
    assert shed("start", "dev", "-v").stderr.rstrip().endswith(("ms", "s"))
    assert "fake kernel: booted" in shed("logs", "dev").stdout
    assert shed("delete", "dev", "--force").stdout == "deleted dev\n"
    assert shed("ls", "-q").stdout == ""


def test_several_sheds_at_once(shed: Shed) -> None:
    """Each gets its turn, whatever becomes of the others; what is so already is fine; --all means all."""
    for name in ("one", "two", "three"):
        shed("create", name)
    assert shed("stop", "one", "two", "one").stdout.splitlines()[0].startswith("stopped one")
    assert shed("stop", "one").stdout == "one is stopped already\n"
    assert json.loads(shed("start", "three", "--json").stdout)["shed"]["status"] == "running"
    failed = shed("start", "one", "nobody", "two", code=1)
    assert [line.split()[:2] for line in failed.stdout.splitlines()] == [["started", "one"], ["started", "two"]]
    assert "there is no shed 'nobody'" in failed.stderr
    restarted = [json.loads(line) for line in shed("restart", "--all", "--json").stdout.splitlines()]
    assert [(one["action"], one["name"], one["shed"]["status"]) for one in restarted] == [
        ("restart", name, "running") for name in ("one", "three", "two")
    ]
    shed("stop", code=2)
    shed("stop", "one", "--all", code=2)
    shed("delete", "one", "two", code=2)  # nobody can be asked
    assert shed("rm", "--all", "--force").stdout.split() == ["deleted", "one", "deleted", "three", "deleted", "two"]
    assert shed("rm", "--all", "--force").stderr == "there are no sheds\n"


def test_stats_show_what_runs(shed: Shed) -> None:
    """A busy VM shows its processor time, a stopped shed is not there, and one that does not run is an error."""
    shed("create", "dev", "--cpus", "2")
    shed("create", "idle")
    shed("stop", "idle")
    (found,) = json.loads(shed("stats", "--over", "200ms", "--json").stdout)
    assert (found["name"], found["cpus"], found["memory_bytes"] > 1 << 20) == ("dev", 2, True)
    assert found["cpu_percent"] < 200
    lines = shed("stats", "dev", "--over", "100ms").stdout.splitlines()
    assert lines[0].split() == ["NAME", "CPU", "MEMORY", "DISK"]
    assert "% of 2" in lines[1]
    assert "no shed 'idle' runs" in shed("stats", "idle", "--over", "100ms", code=1).stderr


def test_inspect_shows_what_there_is(shed: Shed) -> None:
    """For people one member of the answer on each line, with --json the answer."""
    shed("create", "dev", "--label", "for=tests")
    said = json.loads(shed("inspect", "dev", "--json").stdout)
    lines = shed("inspect", "dev").stdout.splitlines()
    assert len(lines) == len(said)
    assert said["labels"] == {"for": "tests"}
    assert next(line for line in lines if line.startswith("labels")).endswith("for=tests")


def test_a_stopped_shed_is_started_by_exec(shed: Shed) -> None:
    """As the documentation promises; people are told, once, and programs that read JSON are not."""
    shed("create", "dev")
    for words, said in ((["exec"], "Starting shed dev...\n"), (["exec", "--json"], ""), (["exec"], "")):
        if said or "--json" in words:
            shed("stop", "dev")
        done = shed(*words, "dev", "--", "echo", "hello")
        assert (done.stdout, done.stderr) == ("hello\n", said)


def test_a_guest_that_hangs_does_not_hold_its_clients(tmp_path: Path) -> None:
    """`timeout` ends a command in it, as it ends any other."""
    words = ["timeout", "-k", "60", "600", *SHED, "exec", "dev", "--", "sh", "-c", "echo up; exec sleep 60"]
    with fake_server(tmp_path) as env:
        pid = json.loads(runner(env)("create", "dev", "--json").stdout)["shed"]["pid"]
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.read(3) == b"up\n"
            os.kill(pid, signal.SIGSTOP)
            process.send_signal(signal.SIGALRM)  # its time is up
            assert b"dev: the shed does not answer" in process.communicate(timeout=120)[1]
            assert process.returncode == 124


def test_json_holds_nothing_else(shed: Shed) -> None:
    """Standard output is one document; standard error is empty, or one error object."""
    done = shed("create", "dev", "--json")
    assert json.loads(done.stdout)["shed"]["name"] == "dev"
    assert done.stderr == ""
    failed = shed("create", "dev", "--json", code=1)
    assert failed.stdout == ""
    assert json.loads(failed.stderr)["error"]["code"] == "SHED_ALREADY_EXISTS"
    assert json.loads(shed("--json", "delete", "dev", code=2).stderr)["error"]["code"] == "CONFIRMATION_NEEDED"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["start", "nope"], 1, "there is no shed 'nope'"),
        (["create", "Bad_Name"], 2, "invalid shed name 'Bad_Name'"),
        (["create", "dev", "--image", "nope"], 1, "no image 'nope'"),
        (["create", "dev", "--upper-size", "1M"], 2, "writable layer of 1 MiB"),
        (["create", "dev", "--local-dir", "/does/not/exist"], 2, "/does/not/exist does not exist"),
        (["create", "dev", "--local-dir", "/etc/passwd"], 2, "/etc/passwd is not a folder"),
        (["create"], 2, "NAME"),
        (["delete", "nope", "--force"], 1, "there is no shed 'nope'"),
        (["delete", "nope"], 2, "refusing to delete"),
        (["logs", "nope"], 1, "there is no shed 'nope'"),
        (["exec", "nope", "--", "true"], 125, "there is no shed 'nope'"),
        (["exec", "Nope", "--", "true"], 125, "invalid shed name 'Nope'"),
        (["list", "--nope"], 2, "--nope"),
    ],
)
def test_mistakes(shared: Shed, words: list[str], code: int, message: str) -> None:
    """One sentence that names the thing, one hint, nothing on standard output, and an exit code that tells whose
    mistake it is.
    """
    done = shared(*words, code=code)
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")


def test_a_folder_that_is_not_there_comes_with_the_command_that_makes_it(shared: Shed) -> None:
    """As one that a shell takes: names may have spaces."""
    done = shared("create", "dev", "--local-dir", "/does/not exist", code=2)
    assert done.stderr.endswith("make it: mkdir -p '/does/not exist'\n")


def test_the_client_as_a_library(shed: Shed, tmp_path: Path) -> None:
    """Objects, events and exceptions instead of words and exit codes."""
    client = Api(f"unix://{tmp_path}/run/shed.sock")
    events: list[Event] = []
    made = client.create("dev", cpus=1, on_event=events.append)
    assert (made["name"], made["status"], made["cpus"]) == ("dev", "running", 1)
    assert {event.name for event in events if isinstance(event, PhaseEvent)} >= {"vm"}
    assert sum(made["timings"].values()) > 0
    assert [one["name"] for one in client.sheds()] == ["dev"]
    assert client.info()["version"] == VERSION
    with pytest.raises(ConflictError) as caught:
        client.start("dev")
    assert caught.value.code == "SHED_ALREADY_RUNNING"
    with Execution(client.address, "dev", ["sh", "-c", "exit 5"]) as execution:
        assert execution.run(stdin=None).code == 5
    with client.connect("dev", 7) as sock:
        sock.sendall(b"ping")
        sock.shutdown(socket.SHUT_WR)
        assert sock.makefile("rb").read() == b"ping"
    client.delete("dev", force=True)
    with pytest.raises(NotFoundError):
        client.shed("dev")


def test_a_warning_of_the_backend_reaches_the_user(tmp_path: Path) -> None:
    """The create goes on; people and machines read the sentence."""
    with fake_server(tmp_path, "warning") as env:
        assert "warning: it warns" in runner(env)("create", "dev").stderr.splitlines()
        runner(env)("stop", "dev")
        assert json.loads(runner(env)("start", "dev", "--json").stderr) == {"warning": "it warns"}


def test_a_failing_create_says_why(tmp_path: Path) -> None:
    """What the agent answered reaches the user, and nothing of the shed is left."""
    with fake_server(tmp_path, "no-root") as env:
        shed = runner(env)
        assert "mounting the root file system failed" in shed("create", "dev", code=1).stderr
        assert json.loads(shed("list", "--json").stdout) == []


def test_delete_ends_a_create_that_waits(tmp_path: Path) -> None:
    """From another terminal: nobody waits for the guest any more, and who did is told why."""
    with fake_server(tmp_path, "mute") as env:
        with subprocess.Popen(
            [*SHED, "create", "dev"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as create:
            assert create.stderr is not None
            while "waiting for the guest" not in create.stderr.readline():
                assert create.poll() is None
            deleted = runner(env)("delete", "--force", "dev")
            assert (deleted.stdout, deleted.stderr.splitlines()[0]) == ("deleted dev\n", "ending its start")
            assert create.stderr.readline() == "error: the create of shed 'dev' was ended: it is being deleted\n"
            assert create.wait(60) == 1
        assert json.loads(runner(env)("list", "--json").stdout) == []


def scripted(tmp_path: Path, answer: Callable[[Conversation], None]) -> tuple[ScriptedServer, Shed]:
    """Return a scripted server, and `shed` talking to it."""
    server = ScriptedServer(tmp_path / "s", answer)
    return server, runner({**os.environ, "SHED_SERVER": server.url})


def test_an_event_stream_that_breaks_off(tmp_path: Path) -> None:
    """A server that dies in the middle is not success."""

    def script(c: Conversation) -> None:
        c.begin_events()
        c.event("progress", '{"phase":"vm","message":"starting"}')

    server, shed = scripted(tmp_path, script)
    with server:
        assert "starting\nerror: lost the connection" in shed("create", "dev", code=1).stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["start", "dev"], "the server goes on; see: shed list"),
        (["image", "pull", "x"], "the pull has ended; what is here is kept for the next one"),
        (["image", "pull", "x", "--detach"], "the server goes on; see: shed image ls"),
        (["image", "push", "x", "r/x"], "the server goes on"),
    ],
)
def test_work_that_is_not_watched_to_its_end(tmp_path: Path, words: list[str], told: str) -> None:
    """Ctrl-C ends the watching alone, and says so."""
    left = threading.Event()

    def script(c: Conversation) -> None:
        c.begin_events()
        c.event("progress", '{"phase":"x","message":"working"}')
        assert left.wait(60)

    server, _ = scripted(tmp_path, script)
    with server, subprocess.Popen([*SHED, "-s", server.url, *words], stderr=subprocess.PIPE, text=True) as shed:
        assert shed.stderr is not None
        assert shed.stderr.readline() == "working\n"
        shed.send_signal(signal.SIGINT)
        assert shed.stderr.read() == f"{told}\ninterrupted\n"
        assert shed.wait() == 130
        left.set()


def test_ctrl_c_undoes_a_create(tmp_path: Path) -> None:
    """Nothing is left of the shed when the command has ended."""
    with fake_server(tmp_path, "mute") as env:
        with subprocess.Popen([*SHED, "create", "dev"], env=env, stderr=subprocess.PIPE, text=True) as create:
            assert create.stderr is not None
            while create.stderr.readline() != "waiting for the guest\n":
                assert create.poll() is None
            create.send_signal(signal.SIGINT)
            said = create.stderr.read().splitlines()
        assert (create.returncode, said[0], said[-2:]) == (
            130,
            "undoing dev; ctrl-C again leaves that to the server",
            ["dev is undone", "interrupted"],
        )
        assert runner(env)("list", "-q").stdout == ""


def test_ctrl_c_leaves_a_shed_that_is_made(shed: Shed, tmp_path: Path) -> None:
    """Undoing a create never touches a shed that was there before."""
    shed("create", "dev")
    api = Api(f"unix://{tmp_path}/run/shed.sock")
    with pytest.raises(ConflictError) as caught:
        api.undo_create("dev")
    assert caught.value.code == "SHED_COMPLETE"
    with pytest.raises(NotFoundError):
        api.undo_create("other")
    assert shed("list", "-q").stdout == "dev\n"


def test_an_error_event_keeps_its_kind(tmp_path: Path) -> None:
    """Its status tells whose mistake it was."""

    def script(c: Conversation) -> None:
        c.begin_events()
        c.event("error", '{"code":"INVALID_LOCAL_DIR","message":"gone","hint":"look","status":400}')

    server, shed = scripted(tmp_path, script)
    with server:
        assert shed("create", "dev", code=2).stderr == "error: gone\nhint: look\n"


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{", b"220 smtp\r\n"]
)
@pytest.mark.parametrize("command", [["list"], ["create", "dev"]])
def test_what_is_not_a_shed_server(tmp_path: Path, answer: bytes, command: list[str]) -> None:
    """One sentence, whatever listens there."""
    server, shed = scripted(tmp_path, lambda c: c.socket.sendall(answer))
    with server:
        assert shed(*command, code=1).stderr.startswith("error: ")


def test_a_question_to_a_server_that_just_ends_is_asked_again(tmp_path: Path) -> None:
    """Once, of the next server; what changes something is not."""
    asked: list[str] = []

    def script(c: Conversation) -> None:
        asked.append(c.request)
        if asked.count(c.request) > 1:
            c.answer(200, b'{"sheds": []}')

    server, shed = scripted(tmp_path, script)
    with server:
        assert shed("list", "-q").stdout == ""
        assert "left without an answer" in shed("create", "dev", code=1).stderr
    assert asked == ["GET /api/sheds", "GET /api/sheds", "POST /api/sheds?progress=blob"]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Shed]:
    """`shed` with folders of its own and no server."""
    env = {
        **os.environ,
        "SHED_DATA_DIR": str(tmp_path / "data"),
        "SHED_RUNTIME_DIR": str(tmp_path / "run"),
        "HOME": str(tmp_path),
    }
    env.pop("SHED_SERVER", None)
    shed = runner(env)
    yield shed
    shed("server", "stop")


def test_the_local_server_is_started_when_it_is_needed(alone: Shed) -> None:
    """Asking for its state does not start it; asking for sheds does; it can be stopped twice, and is gone then."""
    assert alone("server", "status", code=1).stdout.startswith("not running")
    assert json.loads(alone("list", "--json").stdout) == []
    status = json.loads(alone("server", "status", "--json").stdout)
    assert json.loads(alone("server", "list", "--json").stdout)[0]["ssh_port"] == status.get("ssh_port")
    assert (status["running"], status["version"]) == (True, VERSION)
    assert alone("server", "start").stdout == "the server is running already\n"
    assert alone("server", "stop").stdout == "stopped the server\n"
    assert not command_line(Path(f"/proc/{status['pid']}"))
    assert alone("server", "stop").stdout == "the server was not running\n"
    assert alone("server", "start").stdout == "started the server\n"


def test_five_commands_at_once_start_one_server(alone: Shed, tmp_path: Path) -> None:
    """They queue; one starts it, the others use it."""
    env = {
        **os.environ,
        "SHED_DATA_DIR": str(tmp_path / "data"),
        "SHED_RUNTIME_DIR": str(tmp_path / "run"),
        "HOME": str(tmp_path),
    }
    many = [
        subprocess.Popen([*SHED, "list", "--json"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(5)
    ]
    said = [process.communicate(timeout=120) for process in many]
    assert [(process.returncode, out) for process, (out, _) in zip(many, said, strict=True)] == [(0, b"[]\n")] * 5
    assert not [error for _, error in said if b"error" in error]  # a slow machine's may say for whom they wait
    assert (tmp_path / "data/logs/server.log").read_text().count("listening at") == 1


def test_a_server_that_does_not_start_shows_why(alone: Shed, tmp_path: Path) -> None:
    """The last lines of its log are in the message."""
    (tmp_path / ".config/shed").mkdir(parents=True)
    (tmp_path / ".config/shed/server.yaml").write_text("nmae: x\n")
    done = alone("list", code=1)
    assert "the local server ended with exit code 2 as it started" in done.stderr
    assert "unknown key 'nmae'" in done.stderr
    assert done.stderr.splitlines()[-1] == f"hint: its whole log is {tmp_path}/data/logs/server.log"


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    """The folder is named."""
    (tmp_path / "file").touch()
    shed = runner({**os.environ, "SHED_DATA_DIR": str(tmp_path / "file/x"), "SHED_RUNTIME_DIR": str(tmp_path / "run")})
    assert f"cannot make the folder {tmp_path}/file/x: " in shed("list", code=1).stderr


def test_images_without_a_kit(alone: Shed, tmp_path: Path) -> None:
    """The next step is named."""
    done = alone("image", "build", "--from-oci-archive", str(tmp_path), "-n", "x", code=1)
    assert done.stderr == "error: there is no boot kit yet\nhint: make it: shed image bootkit build\n"
    assert json.loads(alone("image", "ls", "--json").stdout) == []
    assert "no image" in alone("image", "inspect", "nope", code=1).stderr
    assert "no image" in alone("image", "inspect", "no\udcff", code=1).stderr


def test_a_damaged_shed_is_listed_for_people_and_machines(shed: Shed, tmp_path: Path) -> None:
    """It is not silently left out; `delete --force` is the way out that the error names."""
    shed("create", "dev")
    shed("stop", "dev")
    (tmp_path / "data/instances/dev/metadata.json").write_text("{")
    assert "dev: the record of shed 'dev' is damaged" in shed("list").stderr
    listed = shed("list", "--json")
    (damaged,) = json.loads(listed.stdout)
    assert (damaged["name"], damaged["status"]) == ("dev", "error")
    assert "shed 'dev' is damaged" in damaged["detail"]
    assert listed.stderr == ""
    assert "shed delete --force dev" in shed("start", "dev", code=1).stderr
    shed("delete", "--force", "dev")
    assert shed("list").stderr == ""
