"""The keeper of the console log: it takes all that a VM says, keeps the end of it, and lives exactly as long as the
VM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.backends.base import Liveness
from shed.backends.jail import keeper as keeping
from shed.backends.qemu import command, launching, process
from shed.sheds.console import ConsoleStream
from support.vms.processes import keeper
from support.waiting import wait_until

HOST = command.Host(Path(sys.executable), "tcg", "5f0c9a51-7e0a-4a58-9d2f-3a6c0f6a3a11")
_SAY = "import os, signal\n"
_SAY += (
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\nsay = lambda data: "
    f"os.write({command.CONSOLE_FD}, data)\n"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], process.Record]]:
    """Start a VMM that runs a program, in ``vm``."""
    folder = tmp_path / "vm"
    folder.mkdir()
    records = []

    def start(program: str) -> process.Record:
        words = [sys.executable, "-S", "-c", _SAY + program, "-uuid", HOST.uuid]
        records.append(launching.launch(folder, words, HOST, "demo", None))
        return records[-1]

    yield start
    for record in records:
        process.send_signal(record, signal.SIGKILL)
        assert asyncio.run(process.wait_exit(record, timeout=60))


def ended(record: process.Record, folder: Path) -> bytes:
    """Wait for the end of a VMM, and return its console log."""

    async def wait() -> None:
        assert await process.wait_exit(record, timeout=60)
        await process.console_settled(folder)

    asyncio.run(wait())
    return (folder / command.CONSOLE).read_bytes()


def test_the_log_keeps_the_end(start: Callable[[str], process.Record], tmp_path: Path) -> None:
    """30 MB of lines become at most 8 MiB, of which none is lost or twice, and the last one is there."""
    record = start("for n in range(300_000): say(b'%099d\\n' % n)")
    text = ended(record, tmp_path / "vm")
    assert len(text) <= keeping.MOST_LOG
    lines = [int(line) for line in text.splitlines()[1:]]
    assert lines == list(range(300_000 - len(lines), 300_000))
    assert len(lines) >= keeping.KEPT_LOG // 100 - 1


def test_last_words_are_not_lost(start: Callable[[str], process.Record], tmp_path: Path) -> None:
    """A VM that ends right after it said why: whoever waits for the log finds that, each time."""
    for number in range(10):
        said = b"panic %d\n" % number
        assert ended(start(f"say({said!r})"), tmp_path / "vm") == said


def test_the_keeper_ends_with_its_vm(start: Callable[[str], process.Record], tmp_path: Path) -> None:
    """Also one that is killed; it holds nothing of the VM's, is nobody's output, and has no rights."""
    record = start("say(b'up\\n'); signal.pause()")
    pid = keeper(record)
    links = {str(Path(f"/proc/{pid}/fd/{descriptor}").readlink()) for descriptor in range(6)}
    assert links == {os.devnull}
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert (status["CapPrm"], status["CapBnd"].strip("0") if os.geteuid() == 0 else "", status["NoNewPrivs"]) == (
        "0" * 16, "", "1"
    )  # fmt: skip
    wait_until(lambda: (tmp_path / "vm" / command.CONSOLE).read_bytes() == b"up\n")
    process.send_signal(record, signal.SIGKILL)
    assert ended(record, tmp_path / "vm") == b"up\n"
    wait_until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


def test_a_vm_that_moves_keeps_its_log(start: Callable[[str], process.Record], tmp_path: Path) -> None:
    """What it says goes on in its new folder, bounded there too; the log of the VM before stays beside it."""
    record = start(
        "say(b'spare\\n'); signal.sigwait({signal.SIGUSR1}); say(b'x' * (20 << 20)); say(b'shed\\n'); signal.pause()"
    )
    source, target = tmp_path / "vm", tmp_path / "shed"
    target.mkdir()
    (target / command.CONSOLE).write_text("before\n")
    wait_until(lambda: (source / command.CONSOLE).read_bytes() == b"spare\n")
    process.move(source, target, "shed")
    process.send_signal(record, signal.SIGUSR1)
    wait_until(lambda: (target / command.CONSOLE).read_bytes().endswith(b"shed\n"))
    assert (target / command.CONSOLE).stat().st_size <= keeping.MOST_LOG
    assert (target / "console.before.log").read_text() == "before\n"
    assert process.liveness(target) is Liveness.OURS


def test_a_vm_does_not_need_its_keeper(start: Callable[[str], process.Record], tmp_path: Path) -> None:
    """When that was killed, what the VM says is refused, and it goes on."""
    record = start(
        "signal.signal(signal.SIGPIPE, signal.SIG_IGN)\nsay(b'up\\n'); signal.sigwait({signal.SIGUSR1})\n"
        "try: say(b'lost')\nexcept BrokenPipeError: open('alive', 'w').close()\nsignal.pause()"
    )
    wait_until(lambda: (tmp_path / "vm" / command.CONSOLE).read_bytes() == b"up\n")
    pid = keeper(record)
    os.kill(pid, signal.SIGKILL)
    # Its VM does not take its exit status.  Only as a zombie has it closed its files.
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    process.send_signal(record, signal.SIGUSR1)
    wait_until((tmp_path / "vm/alive").exists)
    assert process.liveness(tmp_path / "vm") is Liveness.OURS


def test_a_log_that_is_cut_is_followed(start: Callable[[str], process.Record], tmp_path: Path) -> None:
    """Who follows it while it is cut again and again misses lines, or sees some twice, and comes to the last one all
    the same.
    """

    async def follow() -> bytes:
        stream = ConsoleStream(tmp_path / "vm" / command.CONSOLE, b"", 0)
        seen = b""
        async with asyncio.timeout(60):
            while not seen.endswith(b"the end\n"):
                seen += await stream.read()
        stream.close()
        return seen

    start("for n in range(300_000): say(b'%099d\\n' % n)\nsay(b'the end\\n'); signal.pause()")
    assert asyncio.run(follow()).endswith(b"%099d\nthe end\n" % 299_999)


def test_what_the_vmm_itself_prints_is_bounded(start: Callable[[str], process.Record], tmp_path: Path) -> None:
    """A guest can make QEMU complain without end: the end of that is kept, its last words too.  On 6aee119 it filled
    the host's disk.
    """
    record = start("for n in range(300_000): os.write(1 + n % 2, b'%099d\\n' % n)")
    ended(record, tmp_path / "vm")
    text = (tmp_path / "vm" / process.MESSAGES).read_bytes()
    assert len(text) <= keeping.MOST_LOG
    lines = [int(line) for line in text.splitlines()[1:]]
    assert lines == list(range(300_000 - len(lines), 300_000))
    assert len(lines) >= keeping.KEPT_LOG // 100 - 1
