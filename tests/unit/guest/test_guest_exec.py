"""Commands run by the agent, over a real multiplexer, in real processes."""

import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.guest import protocol as p
from support.guests.agent import PATIENCE, Agent, Command, CutError, Host, run
from support.waiting import wait_until


def test_output_and_exit_code(host: Host) -> None:
    """Standard output and standard error come apart, and the exit code last."""
    result = run(host, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.exit) == (b"out\n", b"err\n", {"code": 7})


def test_argv_is_literal(host: Host) -> None:
    """No shell touches the words."""
    words = ["$HOME", "a b", "'\"", "$(id)", "`id`", "new\nline", "é", "", "; exit 3", "-n"]
    result = run(host, "python3", "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words)
    assert json.loads(result.stdout) == words


@pytest.mark.parametrize(("words", "code", "text"), [
    (["no-such-command"], 127, "command not found"),
    (["/no/such/file"], 127, "no such file"),
    (["/etc/passwd"], 126, "Permission denied"),
    (["/tmp"], 126, "Permission denied"),
])  # fmt: skip
def test_what_cannot_run(host: Host, words: list[str], code: int, text: str) -> None:
    """As in a shell: 127 when it is not there, 126 when it cannot be executed, and a sentence."""
    result = run(host, *words)
    assert result.exit["code"] == code
    assert text in str(result.exit["error"])
    assert words[0] in str(result.exit["error"])


def test_a_missing_interpreter_is_named(host: Host, tmp_path: Path) -> None:
    """A script whose interpreter the image lacks is not "not found"."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    result = run(host, str(script))
    assert result.exit["code"] == 126
    assert "interpreter" in str(result.exit["error"])


def test_not_a_program(host: Host, tmp_path: Path) -> None:
    """A file with an executable bit and nothing else."""
    file = tmp_path / "file"
    file.write_bytes(b"\1\2\3\4")
    file.chmod(0o755)
    assert run(host, str(file)).exit["code"] == 126


@pytest.mark.parametrize("payload", [
    b"", b"[]", b"{", b'{"cmd": "ls"}', b'{"cmd": [1]}', b'{"cmd": ["a\\u0000b"]}', (b'{"cmd": ["true"], "env": '
                                                                                    b'["no-equals"]}'),
    b'{"cmd": ["true"], "user": "nobody-here"}', b'{"cmd": ["true"], "working_dir": 3}',
])  # fmt: skip
def test_bad_requests_are_answered(host: Host, payload: bytes) -> None:
    """A request that makes no sense ends in one exit frame with a reason, and others go on."""
    stream = host.open(p.PORT_EXEC)
    stream.send(p.exec_frame(p.EXEC_REQUEST, payload))
    kind, answer = stream.frame()
    assert kind == p.EXIT_CODE
    assert json.loads(answer)["code"] == 125
    assert json.loads(answer)["error"]
    assert run(host, "true").exit == {"code": 0}


def test_the_first_frame_must_be_the_request(host: Host) -> None:
    """Anything else is refused."""
    stream = host.open(p.PORT_EXEC)
    stream.send(p.exec_frame(p.DATA_FRAME, b"x"))
    kind, answer = stream.frame()
    assert (kind, json.loads(answer)["code"]) == (p.EXIT_CODE, 125)


def test_a_frame_that_is_too_long_cuts_the_stream(host: Host) -> None:
    """A length no frame can have is a protocol error, for this stream alone."""
    stream = host.open(p.PORT_EXEC)
    stream.send(b"\x01\xff\xff\xff\xff")
    with pytest.raises(CutError, match="protocol"):
        stream.frame()
    assert run(host, "true").exit == {"code": 0}


def test_environment(host: Host) -> None:
    """Defaults, the image's, the user's own, and what the request says, later winning."""
    output = run(host, "env", "--null", env=["ASKED=a=b", "LANG=xx"]).stdout.decode()
    env = {key: value for key, _, value in (line.partition("=") for line in output.split("\0") if line)}
    assert env["FROM_IMAGE"] == "yes"
    assert env["ASKED"] == "a=b"
    assert env["LANG"] == "xx"
    assert env["TERM"] == "xterm-256color"
    assert {"HOME", "USER", "LOGNAME", "SHELL", "PATH"} <= set(env)
    assert not any(key.startswith("PYTHON") for key in env)


def test_starts_in_the_workspace_or_where_asked(host: Host, tmp_path: Path) -> None:
    """The workspace by default; a folder that was asked for and is not there is an error."""
    assert run(host, "pwd").stdout.decode().strip() == str(tmp_path / "work")
    assert run(host, "pwd", working_dir="/usr").stdout == b"/usr\n"
    result = run(host, "pwd", working_dir="/no/such")
    assert result.exit["code"] == 126
    assert "/no/such" in str(result.exit["error"])


def test_falls_back_when_the_workspace_is_gone(host: Host, tmp_path: Path) -> None:
    """Home, or the root: a command always starts."""
    (tmp_path / "work").rmdir()
    assert run(host, "pwd").exit == {"code": 0}


def test_stdin_reaches_the_command_and_ends(host: Host) -> None:
    """Every byte, then end of file."""
    data = os.urandom(3_000_000)
    result = run(host, "sha256sum", stdin=data)
    import hashlib

    assert result.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_large_output_is_complete(host: Host) -> None:
    """The exit frame waits for all output, on both channels."""
    result = run(host, "sh", "-c", "head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 3")
    assert (len(result.stdout), len(result.stderr), result.exit) == (5_000_000, 3_000_000, {"code": 3})


def test_a_signal_is_an_exit_code(host: Host) -> None:
    """128 + n, and the signal's number."""
    command = Command(host, "sh", "-c", "echo up; sleep 100")
    command.until(b"up")
    command.signal(signal.SIGTERM)
    assert command.wait().exit == {"code": 143, "signal": 15}


def test_signals_reach_the_whole_group_after_the_end_of_stdin(host: Host) -> None:
    """A closed standard input stops neither signals nor the group's children."""
    command = Command(host, "sh", "-c", "trap 'echo caught; exit 5' INT; sleep 100 & echo up; wait")
    command.send(p.STDIN_EOF)
    command.until(b"up")
    command.signal(signal.SIGINT)
    result = command.wait()
    assert result.exit == {"code": 5}
    assert b"caught" in result.stdout


def test_signals_arrive_while_stdin_is_blocked(host: Host) -> None:
    """A command that does not read its input can still be ended."""
    command = Command(host, "sh", "-c", "echo up; exec sleep 100")
    command.until(b"up")
    command.send(p.DATA_FRAME, bytes(200_000))
    command.signal(signal.SIGKILL)
    assert command.wait().exit == {"code": 137, "signal": 9}


def test_a_host_that_keeps_to_the_window_can_always_signal(host: Host) -> None:
    """A window full of input that nobody reads leaves room for the signal behind it."""
    command = Command(host, "sh", "-c", "echo up; exec sleep 100")
    command.until(b"up")
    command.send(p.DATA_FRAME, bytes(p.STDIN_WINDOW))
    command.signal(signal.SIGTERM)
    assert command.wait().exit == {"code": 143, "signal": 15}


def test_the_host_is_told_what_the_command_has_taken(host: Host) -> None:
    """All but less than a quarter of the window, before the exit frame; and by how much the window has grown."""
    size = 3 * p.STDIN_GROWN + 5
    result = run(host, "cat", stdin=bytes(size))
    assert len(result.stdout) == size
    taken = result.taken - (p.STDIN_GROWN - p.STDIN_WINDOW)
    assert size - p.STDIN_GROWN // 4 < taken <= size


def test_stdin_nobody_reads_is_thrown_away(host: Host) -> None:
    """A command that closes its input, or ends first, does not hold up the client."""
    command = Command(host, "sh", "-c", "exec <&-; echo closed; sleep 0.2")
    command.until(b"closed")
    command.send(p.DATA_FRAME, bytes(3_000_000))
    assert command.wait().exit == {"code": 0}


def test_unknown_frames_are_skipped(host: Host) -> None:
    """A newer client may say more; none of it is input for the command."""
    command = Command(host, "cat")
    command.send(0x77, b"never")
    command.send(p.RESIZE, b"not json")
    command.send(p.SIGNAL, b'{"signal": 4711}')
    command.send(p.DATA_FRAME, b"")
    command.send(p.DATA_FRAME, b"real")
    command.send(p.STDIN_EOF)
    assert command.wait().stdout == b"real"


@pytest.mark.parametrize("how", ["reset", "end", "hang up"])
def test_a_vanished_client_is_a_hangup(agent: Agent, tmp_path: Path, how: str) -> None:
    """SIGHUP to the process group: when the stream is cut, when the client's side ends, and when the whole host
    goes.
    """
    sign = tmp_path / "hup"
    with agent.host() as host:
        command = Command(host, "sh", "-c", f"trap 'echo got > {sign}; exit' HUP; sleep 100 & echo up; wait")
        command.until(b"up")
        if how == "reset":
            command.stream.reset()
        elif how == "end":
            command.stream.end()
        if how != "hang up":
            wait_until(sign.exists, what="the hangup")
    wait_until(sign.exists, what="the hangup")
    with agent.host() as host:
        wait_until(lambda: host.control(op="health")["sessions"] == 0, what="no session")


def test_a_child_in_the_background_does_not_hold_the_command(host: Host) -> None:
    """The command's end is its own: what it left behind may keep the pipe, but not the client."""
    result = run(host, "sh", "-c", "echo early; sleep 600 & echo $!")
    assert result.exit == {"code": 0}
    early, child = result.stdout.split()
    assert early == b"early"
    os.kill(int(child), signal.SIGKILL)  # it is still there


def test_a_child_that_is_left_behind_writes_on(host: Host, tmp_path: Path) -> None:
    """What it writes later goes nowhere, and does not end it; more than a pipe holds does not stop it."""
    done = tmp_path / "done"
    later = f"(while ! test -e {tmp_path}/go; do sleep 0.05; done; seq 100000; seq 100000 >&2; echo end >{done})"
    assert run(host, "sh", "-c", f"{later} & echo hi").stdout == b"hi\n"
    (tmp_path / "go").touch()
    wait_until(lambda: done.exists() and done.read_text() == "end\n", what="the child to have written all")


def test_a_noisy_child_in_the_background_does_not_hold_the_command(host: Host) -> None:
    """Even when that child never stops writing; it lives on, and so does the agent."""
    result = run(host, "sh", "-c", "yes & echo $! >&2")
    assert result.exit == {"code": 0}
    pid = int(result.stderr)
    try:
        for _ in range(3):
            assert run(host, "echo", "hi").stdout == b"hi\n"
        assert Path(f"/proc/{pid}").exists()
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Agent]:
    """An agent that gives output as long as a slow machine may take."""
    agent = Agent(tmp_path, {"patience": PATIENCE / 2})
    yield agent
    agent.close()


@pytest.mark.parametrize(
    "script",
    ["(sleep 0.4; echo late) & echo now", "exec 3>&1; exec > >(sleep 0.4; cat >&3); echo now; echo late"],
    ids=["background", "process substitution"],
)
def test_output_after_the_command(patient: Agent, script: str) -> None:
    """The end of a pipeline that nobody waits for gets its last words in."""
    with patient.host() as host:
        assert run(host, "bash", "-c", script).stdout.split() == [b"now", b"late"]


def test_output_to_its_end(tmp_path: Path) -> None:
    """A client that asks for it, as the SSH front does, gets all that anybody writes who holds the output."""
    agent = Agent(tmp_path, {"patience": 0.0})
    try:
        with agent.host() as host:
            script = (
                f"(while ! test -e {tmp_path}/go; do sleep 0.05; done; echo late; echo later >&2) & echo now; exit 3"
            )
            command = Command(host, "sh", "-c", script, to_end=True)
            command.until(b"now")
            (tmp_path / "go").touch()
            result = command.wait()
            assert (result.stdout, result.stderr, result.exit) == (b"now\nlate\n", b"later\n", {"code": 3})
    finally:
        agent.close()


def test_standard_output_that_nobody_reads_any_more(host: Host) -> None:
    """The command's next write fails; standard error and the exit go on.  With a terminal, that is hung up."""
    command = Command(host, "sh", "-c", "yes; echo ended with $? >&2; exit 5", to_end=True)
    command.until(b"y\n")
    command.send(p.STDOUT_CLOSED)
    result = command.wait()
    assert (result.stderr, result.exit) == (b"ended with 141\n", {"code": 5})
    with_terminal = Command(host, "yes", tty=True)
    with_terminal.until(b"y\r\n")
    with_terminal.send(p.STDOUT_CLOSED)
    wait_until(lambda: host.control(op="health")["sessions"] == 0, what="the hangup")


def test_a_client_that_goes_while_output_is_waited_for(agent: Agent, tmp_path: Path) -> None:
    """Its session ends at once, although somebody still holds the output."""
    with agent.host() as host:
        command = Command(host, "sh", "-c", "sleep 600 & echo $!", to_end=True)
        command.until(b"\n")
        command.stream.reset()
        wait_until(lambda: host.control(op="health")["sessions"] == 0, what="no session")
        os.kill(int(command.result.stdout), signal.SIGKILL)


def test_a_command_that_closed_its_output_is_still_waited_for(host: Host) -> None:
    """The end of the pipes is not the end of the command."""
    assert run(host, "sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 9").exit == {"code": 9}


def test_a_slow_reader_holds_up_nobody_else(host: Host) -> None:
    """Backpressure: the agent keeps little, the writer waits, and other streams go on."""
    slow = Command(host, "sh", "-c", "head -c 20000000 /dev/zero; echo done >&2")
    slow.stream.greedy = False
    wait_until(lambda: not host.pump(0.2), what="the guest stops at its credit")
    assert len(slow.stream.received) <= p.INITIAL_CREDIT
    for _ in range(5):
        assert run(host, "echo", "hi").stdout == b"hi\n"
    slow.stream.greedy = True
    host.sock.sendall(p.mux_frame(p.CREDIT, slow.stream.number, len(slow.stream.received).to_bytes(4, "big")))
    result = slow.wait()
    assert (len(result.stdout), result.stderr) == (20_000_000, b"done\n")


def test_many_at_once(host: Host) -> None:
    """Streams do not mix."""
    commands = [
        Command(host, "sh", "-c", f"head -c 300000 /dev/zero | tr '\\0' {chr(97 + i)}; exit {i}") for i in range(20)
    ]
    for index, command in enumerate(commands):
        result = command.wait()
        assert result.exit == {"code": index}
        assert result.stdout == bytes([97 + index]) * 300_000


def test_orphans_are_reaped(host: Host) -> None:
    """The agent is the first process of its machine: it collects whoever ends."""
    result = run(host, "sh", "-c", "(sleep 0.05 & echo $!)")
    pid = int(result.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the orphan is gone")


def test_inherited_state_is_plain(host: Host) -> None:
    """Default signal actions, no stray descriptors, own session, umask 022 or the tester's."""
    result = run(host, "sh", "-c", "grep SigIgn /proc/self/status; ls /proc/self/fd; ps -o sid= -p $$; echo $$")
    ignored, *fds, sid, pid = result.stdout.split(b"\n")[:-1]
    libc_own = (
        1 << 31 | 1 << 32
    )  # 32 and 33: the C library refuses to change them, so they stay as whoever runs the tests left them
    assert int(ignored.split()[1], 16) & ~libc_own == 0
    assert {int(fd) for fd in fds} <= {0, 1, 2, 3}
    assert sid.strip() == pid


def test_no_command_is_a_login_shell(host: Host) -> None:
    """The user's shell, told by its name that it is a login shell."""
    command = Command(host)
    command.send(p.DATA_FRAME, b"echo name $0\nexit 3\n")
    result = command.wait()
    assert result.stdout.startswith(b"name -")
    assert result.exit == {"code": 3}


@pytest.mark.root
def test_runs_as_the_user_asked_for(host: Host) -> None:
    """Uid, gid and supplementary groups change; nothing of root is left."""
    result = run(
        host, "sh", "-c", "id -u; id -g; id -G; grep CapEff /proc/self/status; echo $HOME $USER", user="daemon"
    )
    lines = result.stdout.decode().split("\n")
    assert lines[:2] == ["1", "1"]
    assert lines[2].split() == ["1"]
    assert int(lines[3].split()[1], 16) == 0
    assert lines[4] == "/usr/sbin daemon"
    assert run(host, "id", "-u", user="4711:4712").stdout == b"4711\n"
    assert run(host, "id", "-G", user="4711:4712").stdout == b"4712\n"


def test_no_commands_before_the_machine_is_ready(tmp_path: Path) -> None:
    """A clear answer, whatever the request."""
    agent = Agent(tmp_path, None)
    try:
        with agent.host() as host:
            result = run(host, "true")
            assert result.exit["code"] == 125
            assert "not ready" in str(result.exit["error"])
            assert host.control(op="health")["state"] == "hello"
    finally:
        agent.close()


def test_no_room_for_another_command(agent: Agent) -> None:
    """Out of descriptors: each further command is told so, nothing leaks, and when there is room again commands run."""
    resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, (24, 1024))
    with agent.host() as host:
        running: list[Command] = []
        refused: list[Command] = []
        for _ in range(12):
            command = Command(host, "cat")
            command.send(p.DATA_FRAME, b"there")
            (running if command.runs_once_it_says(b"there") else refused).append(
                command
            )  # while one starts it has more open
        assert len(refused) >= 6
        assert len(running) >= 2
        assert all(command.wait().exit["code"] == 125 for command in refused)
        assert "no room" in str(refused[0].result.exit["error"])
        for command in running[:2]:
            command.send(p.STDIN_EOF)
            assert command.wait().exit == {"code": 0}
        assert run(host, "true").exit == {"code": 0}


def test_another_command_when_the_first_is_not_there(host: Host) -> None:
    """Not when it is there and fails; when neither is, the first is named."""
    assert run(host, "no-such-shell", "-c", "x", fallback=["sh", "-c", "echo instead"]).stdout == b"instead\n"
    assert run(host, "sh", "-c", "exit 127", fallback=["echo", "never"]).exit == {"code": 127}
    assert "no-such-shell" in str(run(host, "no-such-shell", fallback=["no-other-shell"]).exit["error"])


def test_a_command_may_start_at_home(host: Host) -> None:
    """Instead of in the workspace."""
    assert (
        run(host, "sh", "-c", 'pwd; echo "$HOME"', home=True).stdout.split()[0]
        == run(host, "sh", "-c", "echo $HOME").stdout.strip()
    )
