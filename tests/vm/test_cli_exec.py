"""`shed exec` and `shed console` in a real VM: every byte, signal and exit code crosses client, server, QEMU and
agent.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.tools.terminal import TIMEOUT, Terminal
from support.vms.machine import Machine as UserMachine
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
SHED = [sys.executable, "-m", "shed.cli.main"]


class Machine:
    """A machine with one shed, ``dev``, made from a static busybox."""

    def __init__(self, root: Path, way: str) -> None:
        self.user = UserMachine(root, way=way)
        self.env = self.user.environment

    def shed(self, *words: str | bytes, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
        """Run the command line."""
        done = subprocess.run([*SHED, *words], env=self.env, input=stdin, capture_output=True, timeout=300, check=False)
        assert done.returncode == code, done
        return done

    def sh(self, script: str, *, stdin: bytes = b"", code: int = 0) -> bytes:
        """Run a script in the shed and return what it prints."""
        return self.shed("exec", "dev", "--", "sh", "-c", script, stdin=stdin, code=code).stdout

    def start(self, script: str, *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a script in the shed."""
        words = [*SHED, "exec", "dev", "--", "sh", "-c", script]
        return subprocess.Popen(words, env=self.env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait_gone(self, mark: str) -> None:
        """Wait until no process of the shed holds `mark` in its words."""
        wait_until(lambda: mark.encode() not in self.shed("exec", "dev", "--", "ps").stdout)


@pytest.fixture(scope="module")
def machine(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine, for all tests: none leaves anything in the shed."""
    root = tmp_path_factory.mktemp("machine")
    copy_store(small_store, root / "data/images")
    machine = Machine(root, way)
    try:
        machine.shed("create", "dev", "--image", "busybox")
        yield machine
    finally:
        machine.user.end()


def test_words_arrive_as_they_are(machine: Machine) -> None:
    """No shell takes them apart: quotes, newlines, dollars, any bytes."""
    words = ["a'b", 'c"d', "new\nline", "üñ😀", "$HOME", "`id`", "$(id)", "a;b|c", "", "--json", "*", "\\"]
    script = 'for word; do echo "[$word]"; done'
    shown = machine.shed("exec", "dev", "--", "sh", "-c", script, "sh", *words, b"\xff\x80").stdout
    assert shown == b"".join(b"[%s]\n" % os.fsencode(word) for word in words) + b"[\xff\x80]\n"


@pytest.mark.parametrize("code", [0, 1, 7, 125, 255])
def test_exit_codes_pass_through(machine: Machine, code: int) -> None:
    """Whatever the command returns."""
    machine.sh(f"exit {code}", code=code)


def test_other_ends(machine: Machine) -> None:
    """A signal is 128 + n; a command that is not there is 127, and is named."""
    machine.sh("kill -9 $$", code=137)
    failed = machine.shed("exec", "dev", "--", "nope", code=127)
    assert failed.stderr.startswith(b"error: dev: nope")


def test_outputs_stay_apart(machine: Machine) -> None:
    """Standard error is not folded into standard output."""
    done = machine.shed("exec", "dev", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_environment_folder_and_user(machine: Machine) -> None:
    """As the options say."""
    done = machine.shed(
        "exec", "-e", "A=b c", "-w", "/tmp", "-u", "root", "dev", "--", "sh", "-c", 'echo "$A $PWD"; id -u'
    )
    assert done.stdout == b"b c /tmp\n0\n"


def test_a_hundred_megabytes_in(machine: Machine) -> None:
    """Binary, complete, and the command sees the end."""
    data = os.urandom(1 << 20) * 100
    assert machine.sh("busybox sha256sum", stdin=data).split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_hundred_megabytes_out(machine: Machine) -> None:
    """The exit frame waits for all of it."""
    out = machine.sh("head -c 104857600 /dev/zero; echo end; exit 3", code=3)
    assert len(out) == 100 * (1 << 20) + 4
    assert out.endswith(b"\0end\n")


def test_signals_end_a_command_that_reads_nothing(machine: Machine) -> None:
    """Also when more input waits for it than fits anywhere."""
    with Path("/dev/zero").open("rb") as endless:
        process = machine.start("echo up; exec sleep 4711", stdin=endless.fileno())
        assert process.stdout is not None
        assert process.stdout.read(3) == b"up\n"
        process.terminate()
        assert process.wait(TIMEOUT) == 143
        process.communicate()
    machine.wait_gone("4711")


def test_a_command_may_answer_a_signal(machine: Machine) -> None:
    """Ctrl-C is the command's business."""
    process = machine.start("trap 'echo caught; exit 6' INT; echo up; while :; do sleep 0.1; done")
    assert process.stdout is not None
    assert process.stdout.read(3) == b"up\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=TIMEOUT) == (b"caught\n", b"")
    assert process.returncode == 6


@pytest.mark.parametrize("how", ["reader leaves", "killed"])
def test_a_client_that_is_gone_ends_its_command(machine: Machine, how: str) -> None:
    """Nothing is left running in the shed, whether our output's reader went or we were killed."""
    process = machine.start("busybox yes 4712" if how == "reader leaves" else "echo up; sleep 4712")
    assert process.stdout is not None
    assert process.stdout.read(2) in (b"47", b"up")
    if how == "killed":
        process.kill()
    process.stdout.close()
    assert process.wait(TIMEOUT) == (141 if how == "reader leaves" else -9)
    assert process.stderr is not None
    process.stderr.close()
    machine.wait_gone("4712")


def test_what_a_command_leaves_behind(machine: Machine) -> None:
    """Its last words come, and it lives on when it writes later: more than a pipe holds, to the end."""
    waits = "while ! test -e /tmp/go; do sleep 0.1; done; busybox seq 50000; echo done >/tmp/done"
    assert machine.sh(f"(sleep 0.5; echo late) & ({waits}) & echo now") == b"now\nlate\n"
    machine.sh("touch /tmp/go; while ! test -e /tmp/done; do sleep 0.1; done; busybox rm /tmp/go /tmp/done")


def test_a_process_that_is_killed_in_the_shed_is_an_exit_code(machine: Machine) -> None:
    """From inside, by somebody else."""
    process = machine.start("echo $$; exec sleep 4714")
    assert process.stdout is not None
    machine.sh(f"kill -9 {int(process.stdout.readline())}")
    assert process.wait(TIMEOUT) == 137
    process.communicate()


def test_a_server_that_is_killed_ends_its_commands(machine: Machine) -> None:
    """The client is told, nothing goes on in the shed, and the next command finds a server and the same VM."""
    boot = machine.sh("cat /proc/sys/kernel/random/boot_id")
    process = machine.start("echo up; exec sleep 4715")
    assert process.stdout is not None
    assert process.stdout.read(3) == b"up\n"
    os.kill(json.loads(machine.shed("server", "status", "--json").stdout)["pid"], signal.SIGKILL)
    assert b"error: lost the connection to the command in dev" in process.communicate(timeout=TIMEOUT)[1]
    assert process.returncode == 125
    machine.wait_gone("4715")
    assert machine.sh("cat /proc/sys/kernel/random/boot_id") == boot


def test_a_terminal(machine: Machine) -> None:
    """Size, its changes, ctrl-C, ctrl-D and the exit code of a login shell; afterwards the user's terminal is as
    before.
    """
    terminal = Terminal()
    try:
        process = terminal.run("console", "dev", env=machine.env)
        terminal.read_until(b"# ")
        terminal.type(b"busybox stty size; echo $TERM\r")
        terminal.read_until(b"31 97\r\nxterm-256color\r\n")
        terminal.resize(50, 120)
        terminal.type(b"until busybox stty size | busybox grep '^50 120'; do sleep 0.1; done\r")
        terminal.read_until(b"\r\n50 120\r\n")
        # Keys typed while the shell changes the terminal's mode are plain input: type only when the program, or the
        # prompt, is there.
        terminal.type(b"sh -c 'echo up; exec sleep 4713'\r")
        terminal.read_until(b"\r\nup\r\n")
        terminal.type(b"\x03")
        terminal.read_until(b"# ")
        terminal.type(b"(exit 9)\r")
        terminal.read_until(b"# ")
        terminal.type(b"\x04")
        assert process.wait(TIMEOUT) == 9
        assert terminal.restored()
    finally:
        terminal.close()
    machine.wait_gone("4713")


def test_attach_where_the_image_has_no_tmux(machine: Machine) -> None:
    """A login shell, with a word about it; who names a session gets an error."""
    terminal = Terminal()
    try:
        process = terminal.run("attach", "dev", env=machine.env)
        terminal.read_until(b"the image of dev has no tmux: this is a login shell, and it ends with the connection")
        terminal.read_until(b"# ")
        terminal.type(b"exit 4\r")
        assert process.wait(TIMEOUT) == 4
        process = terminal.run("attach", "dev", "-S", "work", env=machine.env)
        terminal.read_until(b"hint: install it in the shed, or use: shed console dev")
        assert process.wait(TIMEOUT) == 1
    finally:
        terminal.close()


def test_exec_starts_a_stopped_shed(machine: Machine) -> None:
    """And the input that was waiting meanwhile arrives."""
    machine.shed("stop", "dev")
    assert machine.sh("cat", stdin=b"patient") == b"patient"


def test_a_vm_that_is_killed_ends_its_commands(machine: Machine) -> None:
    """The client is told, and the shed is stopped."""
    process = machine.start("echo up; exec sleep 4716")
    assert process.stdout is not None
    assert process.stdout.read(3) == b"up\n"
    (shed,) = json.loads(machine.shed("list", "--json").stdout)
    os.kill(shed["pid"], signal.SIGKILL)
    assert b"error: lost the connection to the command in dev" in process.communicate(timeout=TIMEOUT)[1]
    assert process.returncode == 125
    wait_until(lambda: json.loads(machine.shed("list", "--json").stdout)[0]["status"] == "stopped")
