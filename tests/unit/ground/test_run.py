"""Running external commands."""

import asyncio
import os
from pathlib import Path

import pytest

from shed.errors import UnavailableError
from shed.run import CommandError, environment, run, run_async


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
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", "echo boom >&2; exit 3"])
    assert "exit code 3: boom" in caught.value.message
    assert caught.value.hint == "run it by hand: sh -c 'echo boom >&2; exit 3'"


def test_a_signal_is_explained_in_words() -> None:
    """Nobody has to know what -9 means."""
    with pytest.raises(CommandError, match="killed by SIGKILL"):
        run(["sh", "-c", "kill -9 $$"])


def test_a_missing_program_is_named() -> None:
    """The hint is the caller's, who knows the package."""
    with pytest.raises(UnavailableError) as caught:
        run(["no-such-program-here"], hint="apt install it")
    assert (caught.value.code, caught.value.hint) == ("TOOL_MISSING", "apt install it")


def test_a_timeout_is_an_error_and_ends_the_command() -> None:
    """The command does not stay behind."""
    with pytest.raises(CommandError, match="did not end within"):
        run(["sleep", "60"], timeout=0.05)


def test_async_run_kills_its_command_when_cancelled(tmp_path: Path) -> None:
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

    pid = asyncio.run(scenario())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_async_run_reports_failures_like_run() -> None:
    """Both ways of running say the same."""
    with pytest.raises(CommandError, match="exit code 4"):
        asyncio.run(run_async(["sh", "-c", "exit 4"]))
