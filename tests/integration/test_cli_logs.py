"""`shed logs` and its -f against the real server: what is appended, cut off and replaced behind its back, and who
leaves first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers.running import Running
from support.servers.world import World
from support.waiting import wait_until

SHED = [sys.executable, "-m", "shed.cli.main"]


class Shed:
    """A shed ``dev``, its log, and the command line."""

    def __init__(self, world: World, server: Running) -> None:
        self.world = world
        self.server = server
        self.log = world.instance("dev") / "console.log"
        self.env = {**os.environ, "SHED_SERVER": f"unix://{server.socket}", "HOME": str(world.paths.data.parent)}

    def shed(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
        """Run the command line."""
        done = subprocess.run(
            [*SHED, *words], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == code, done
        return done

    @contextlib.contextmanager
    def follow(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Follow the log while the block lasts."""
        words, pipe = ("logs", "-f", *words, "dev"), subprocess.PIPE
        with subprocess.Popen(
            [*SHED, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def append(self, text: bytes) -> None:
        """Say something on the console."""
        with self.log.open("ab") as file:
            file.write(text)

    def followers(self) -> int:
        """Return how often the server has the log open."""
        found = 0
        for entry in Path(f"/proc/{self.server.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += entry.readlink() == self.log
        return found


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Shed]:
    """A shed whose console is a file that the test writes to."""
    world = World(tmp_path)
    server = Running(world)
    dev = Shed(world, server)
    dev.shed("create", "dev", "--image", "base")
    dev.log.write_bytes(b"one\ntwo\nthr\xffe\n")
    yield dev
    server.process.poll()
    if server.process.returncode is None:
        server.end()
    world.kill_machines()


def expect(process: subprocess.Popen[bytes], wanted: bytes) -> None:
    """Read exactly `wanted`."""
    assert process.stdout is not None
    assert process.stdout.read(len(wanted)) == wanted


def test_the_last_lines(dev: Shed) -> None:
    """As many as asked for; bytes that are no text pass through."""
    assert dev.shed("logs", "dev").stdout == b"one\ntwo\nthr\xffe\n"
    assert dev.shed("logs", "dev", "-n", "2").stdout == b"two\nthr\xffe\n"
    assert dev.shed("logs", "dev", "--tail", "0").stdout == b""
    assert dev.shed("logs", "dev", "-n", "99").stdout == b"one\ntwo\nthr\xffe\n"
    assert b"'-1'" in dev.shed("logs", "dev", "--tail=-1", code=2).stderr
    assert b"no shed 'nope'" in dev.shed("logs", "-f", "nope", code=1).stderr
    assert b"no JSON output" in dev.shed("logs", "-f", "--json", "dev", code=2).stderr


def test_a_console_without_a_boot(dev: Shed) -> None:
    """It is said where to look, on standard error, and not to programs."""
    for said in (b"", b"shed-agent: this machine was restored, not booted: what its kernel said is not here\n"):
        dev.log.write_bytes(said)
        done = dev.shed("logs", "dev")
        assert done.stdout == said
        assert b"shed exec --user root dev -- dmesg" in done.stderr
        assert dev.shed("logs", "dev", "--json").stderr == b""
        assert dev.shed("logs", "dev", "-n", "0").stderr == b""


def test_following(dev: Shed) -> None:
    """Appended, cut at its beginning while it is written to, emptied, replaced by a start; it ends with the shed."""
    with dev.follow("-n", "1") as process:
        expect(process, b"thr\xffe\n")
        dev.append(b"four\n")
        expect(process, b"four\n")
        content = dev.log.read_bytes() + b"five\n"
        with dev.log.open("r+b") as file:  # as a prune does, in place: the VMM has the file open
            file.write(content[-10:])
            file.truncate()
        expect(process, b"five\n")
        with dev.log.open("r+b") as file:
            file.truncate()
            file.write(b"new")
        expect(process, b"new")
        dev.log.rename(dev.log.with_suffix(".before"))
        dev.log.write_bytes(b"restarted\n")
        expect(process, b"restarted\n")
        dev.shed("delete", "--force", "dev")
        assert process.communicate(timeout=60) == (b"", b"")
        assert process.returncode == 0


def test_a_follower_that_leaves_is_forgotten(dev: Shed) -> None:
    """At once, although the console says nothing; others go on."""
    with dev.follow() as process, dev.follow() as other:
        expect(process, b"one\n")
        wait_until(lambda: dev.followers() == 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        wait_until(lambda: dev.followers() == 1)
        dev.append(b"four\n")
        expect(other, b"one\ntwo\nthr\xffe\nfour\n")
        other.kill()
    wait_until(lambda: dev.followers() == 0)


def test_a_follower_whose_reader_left_ends(dev: Shed) -> None:
    """As `tail -f` does: not only with the next line, which may be hours away."""
    with dev.follow() as process:
        assert process.stdout is not None
        wait_until(lambda: dev.followers() == 1)
        process.stdout.close()
        assert process.wait(60) == 141
    wait_until(lambda: dev.followers() == 0)


def test_a_server_that_ends_is_told(dev: Shed) -> None:
    """It does not wait for its followers, and they hear that this is not the shed's end."""
    with dev.follow() as process:
        expect(process, b"one\n")
        assert dev.server.end() == 0
        assert b"error: " in process.communicate(timeout=60)[1]
        assert process.returncode == 1
