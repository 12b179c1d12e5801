"""`shed run`, against a server whose VMs are fake: what it returns and copies, and that nothing is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.servers.fake_server import fake_server
from support.servers.world import World
from support.waiting import wait_until

pytestmark = pytest.mark.timeout(300)
SHED = [sys.executable, "-m", "shed.cli.main"]
Shed = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which `shed` talks to a server below `tmp_path`."""
    with fake_server(tmp_path) as env:
        yield env


@pytest.fixture
def shed(env: dict[str, str]) -> Shed:
    """Runs `shed`."""

    def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*SHED, *words], env=env, input=stdin, capture_output=True, check=False)

    return run


def nothing_is_left(root: Path) -> bool:
    """Tell whether there is no trace of a shed, and no VM."""
    world = World(root)
    return not world.traces() and not world.machines()


def test_a_command(shed: Shed, tmp_path: Path) -> None:
    """Its input, its outputs and its exit code are those of `shed run`; the shed is gone when that returns."""
    done = shed("run", "--rm", "sh", "-c", "read a; echo $a; echo err >&2; exit 7", stdin=b"in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in\n", b"err\n")
    assert nothing_is_left(tmp_path)


def test_without_rm_it_stays(shed: Shed) -> None:
    """Stopped, under the name that is told."""
    done = shed("run", "--name", "dev", "--", "echo", "1")
    assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr
    assert b"dev is stopped and kept" in done.stderr
    assert b"stopped" in shed("list").stdout
    assert b"true" not in shed("inspect", "dev").stdout.lower()
    assert shed("run", "--name", "dev", "true").returncode == 125
    done = shed("run", "true")
    assert b"run-" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--out", "dist", "true"], 2, b"PATH:DIR"),
        (["--out", "dist:/etc/passwd", "true"], 2, b"is not a folder"),
        (["-v", "/tmp:/proc", "true"], 125, b"belongs to the shed's system"),
        (["-v", "/tmp", "--local-dir", "/tmp", "true"], 2, b"there is a folder at /workspace already"),
        (["--", ""], 2, b"is empty"),
        (["--image", "none", "true"], 125, b"no image 'none'"),
    ],
)
def test_what_cannot_be(shed: Shed, tmp_path: Path, words: list[str], code: int, says: bytes) -> None:
    """It is told, with a code that no command has, and nothing is left."""
    done = shed("run", "--rm", *words)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert nothing_is_left(tmp_path)


def test_words_behind_the_command_are_its_own(shed: Shed) -> None:
    """Also those that look like options of shed; before it they are shed's, together or alone."""
    assert shed("run", "--rm", "-iT", "echo", "-v", "--json", "--", "-s").stdout == b"-v --json -- -s\n"
    assert shed("run", "--rm", "-e", "A=1", "--", "echo", "--rm").stdout == b"--rm\n"


def test_interrupted(env: dict[str, str], tmp_path: Path) -> None:
    """ctrl-C ends the command, whose exit code is returned, and the shed is gone then."""
    words = [*SHED, "run", "--rm", "sh", "-c", "trap 'exit 3' INT; echo begun; while :; do sleep 0.1; done"]
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"begun\n"
        running.send_signal(signal.SIGINT)
        assert running.wait() == 3
    assert nothing_is_left(tmp_path)


def test_killed_at_any_moment(env: dict[str, str], tmp_path: Path) -> None:
    """Whatever a client that is killed was doing, nothing is left of its shed."""
    moments = random.Random(4)
    for number in range(int(os.environ.get("SHED_TEST_ROUNDS", "12"))):
        signals = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
        with subprocess.Popen(
            [*SHED, "run", "--rm", "sleep", "1000"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as running:
            time.sleep(moments.random() * 0.8)
            running.send_signal(signals[number % 4])
    wait_until(lambda: nothing_is_left(tmp_path), what="all is gone")


def test_a_server_that_is_killed_leaves_it_to_the_next(tmp_path: Path) -> None:
    """Which deletes what was made for clients, and nothing else."""
    with fake_server(tmp_path) as env:
        subprocess.run([*SHED, "create", "dev"], env=env, check=True, capture_output=True)
        words = [*SHED, "run", "--rm", "sh", "-c", "echo begun; exec sleep 1000"]
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"begun\n"
            listed = subprocess.run([*SHED, "server", "status", "--json"], env=env, check=True, capture_output=True)
            os.kill(int(json.loads(listed.stdout)["pid"]), signal.SIGKILL)
            _, error = running.communicate()
            assert running.returncode == 125, error
    with fake_server(tmp_path) as env:
        wait_until(
            lambda: World(tmp_path).traces() == {"instances/dev", "uppers/dev"},
            what="what was made for the client is gone",
        )
