"""Running external commands."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from shed.errors import UnavailableError
from shed.run import ToolError, environment, run, run_async, run_streaming
from support.waiting import wait_until


def test_output_is_captured_and_stdin_is_empty() -> None:
    """A command that reads gets end of file at once."""
    done = run(["sh", "-c", "cat; echo out; echo err >&2"])
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"err\n")


def test_stdin_is_passed_when_given() -> None:
    """Bytes go in and come out."""
    assert run(["cat"], stdin=b"\x00\xff").stdout == b"\x00\xff"


def test_only_known_variables_reach_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret in our environment does not travel."""
    monkeypatch.setenv("SECRET_TOKEN", "x")
    assert b"SECRET_TOKEN" not in run(["env"]).stdout
    assert environment({"A": "b"})["A"] == "b"


def test_a_failure_says_which_command_how_and_what_it_printed() -> None:
    """Exit code and last output are in the sentence; the hint can be pasted into a shell."""
    with pytest.raises(ToolError) as caught:
        run(["sh", "-c", "echo boom >&2; exit 3"])
    assert "exit code 3: boom" in caught.value.message
    assert caught.value.hint == "run it by hand: sh -c 'echo boom >&2; exit 3'"


def test_a_signal_is_explained_in_words() -> None:
    """Nobody has to know what -9 means."""
    with pytest.raises(ToolError, match="killed by SIGKILL"):
        run(["sh", "-c", "kill -9 $$"])


def test_a_missing_program_is_named() -> None:
    """The hint is the caller's, who knows the package."""
    with pytest.raises(UnavailableError) as caught:
        run(["no-such-program-here"], hint="apt install it")
    assert (caught.value.code, caught.value.hint) == ("TOOL_MISSING", "apt install it")


def test_a_timeout_is_an_error_and_ends_the_command() -> None:
    """The command does not stay behind."""
    with pytest.raises(ToolError, match="did not end within"):
        run(["sleep", "60"], timeout=0.05)


async def test_async_run_kills_its_command_when_cancelled(tmp_path: Path) -> None:
    """No process survives a cancelled caller."""
    fifo = tmp_path / "pid"
    os.mkfifo(fifo)

    async def scenario() -> int:
        task = asyncio.create_task(run_async(["sh", "-c", f"echo $$ > {fifo}; exec sleep 60"]))
        pid = int(await asyncio.to_thread(fifo.read_text))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    pid = await scenario()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_async_run_reports_failures_like_run() -> None:
    """Both ways of running say the same."""
    with pytest.raises(ToolError, match="exit code 4"):
        await run_async(["sh", "-c", "exit 4"])


def test_streamed_output_is_shown_as_it_comes(tmp_path: Path) -> None:
    """Both streams, while the command still runs."""
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    heard = b""

    def show(data: bytes) -> None:
        nonlocal heard
        heard += data
        if heard == b"one\n":
            fifo.write_bytes(b"go on\n")

    run_streaming(["sh", "-c", f"echo one; read x < {fifo}; echo $x >&2"], show=show)
    assert heard == b"one\ngo on\n"


@pytest.mark.parametrize(("shown", "told"), [(True, "exit code 3"), (False, "exit code 3: out\nerr")])
def test_a_streamed_failure_tells_what_was_not_shown(shown: bool, told: str) -> None:
    """What people have seen is not repeated."""
    heard: list[bytes] = []
    with pytest.raises(ToolError) as caught:
        run_streaming(["sh", "-c", "echo out; echo err >&2; exit 3"], show=heard.append if shown else None)
    assert caught.value.message == f"sh failed with {told}"


@pytest.mark.parametrize(
    ("script", "last"),
    [
        ("trap 'echo cleaned; exit' INT; echo $$ >&3; while :; do :; done", b"cleaned\n"),
        ("sleep 60 & echo $$ >&3; wait; echo cleaned", b"cleaned\n"),
        ("trap '' INT TERM; sleep 60 & echo began; echo $$ >&3; wait", b"began\n"),
    ],
    ids=["it cleans up", "its command fails", "stubborn"],
)
def test_an_interrupt_ends_the_whole_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, last: bytes
) -> None:
    """What the command started fails first, so that it can clean up; in the end, nobody of the group is left."""
    monkeypatch.setattr("shed.run._GRACE", 0.5 if last == b"began\n" else 60.0)
    group = 0

    def interrupt(data: bytes) -> None:
        nonlocal group
        group = int(data)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_streaming(["sh", "-c", f"exec 3>&1 >{tmp_path}/out; {script}"], show=interrupt)
    assert (tmp_path / "out").read_bytes() == last
    wait_until(lambda: _running(group) == [])


def _running(group: int) -> list[str]:
    """Return the processes of a group that have not ended, though nobody may have reaped them yet."""
    lines = subprocess.run(
        ["ps", "-e", "-o", "pgid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [line for line in lines if int(line.split()[0]) == group and not line.split()[1].startswith("Z")]
