"""Which process is a VM of ours: three answers, with real processes; and starting one so that it outlives us, recorded
first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from shed.backends.base import Liveness
from shed.backends.qemu import command, launchers, launching, process
from shed.errors import BackendError
from shed.inwaiting import Spare
from shed.threads import stoppable
from support.vms import processes
from support.vms.machine import ended
from support.waiting import wait_until

UUID = "5f0c9a51-7e0a-4a58-9d2f-3a6c0f6a3a10"
HOST = command.Host(Path(sys.executable), "tcg", UUID)
SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)", "-uuid", UUID]


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / ("long" * 40) / "state"
    folder.mkdir(parents=True)
    yield folder
    record = None
    with contextlib.suppress(process.BrokenRecordError):
        record = process.load(folder)
    if record is not None and process.identify(record) is Liveness.OURS:
        process.send_signal(record, signal.SIGKILL)
        assert asyncio.run(process.wait_exit(record, timeout=60))


def launch(state_dir: Path, argv: list[str] | None = None) -> process.Record:
    return launching.launch(state_dir, argv or SLEEP, HOST, "demo", None)


def store(state_dir: Path, record: process.Record) -> None:
    (state_dir / process.RECORD).write_text(json.dumps(asdict(record)))


def test_a_started_process_is_ours_detached_and_recorded(state_dir: Path) -> None:
    """Own session, nothing on its standard input, messages in the log, private sockets and record, no descriptor of
    ours.
    """
    leak_read, leak_write = os.pipe()
    os.set_inheritable(leak_write, True)
    try:
        record = launch(state_dir)
    finally:
        os.close(leak_read)
        os.close(leak_write)
    assert process.load(state_dir) == record
    assert process.liveness(state_dir) is Liveness.OURS
    assert os.getsid(record.pid) == record.pid
    descriptors = Path(f"/proc/{record.pid}/fd")
    # As it starts it opens files of its own.
    wait_until(lambda: sorted(int(path.name) for path in descriptors.iterdir()) == [0, 1, 2, 4, 5, 6])
    assert (descriptors / "0").readlink() == Path("/dev/null")
    assert str((descriptors / "2").readlink()).startswith("pipe:")  # to the keeper of its log
    assert Path(f"/proc/{record.pid}/cwd").readlink() == state_dir
    for name in (process.AGENT_SOCKET, process.MONITOR_SOCKET, process.RECORD):
        assert stat.S_IMODE((state_dir / name).stat().st_mode) == 0o600


def test_no_record_is_not_ours(tmp_path: Path) -> None:
    """Nothing was started here, or the folder is not even there."""
    assert process.liveness(tmp_path) is Liveness.NOT_OURS
    assert process.liveness(tmp_path / "nothing") is Liveness.NOT_OURS


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Liveness.OURS),
        ({"start_time": 1}, Liveness.NOT_OURS),
        ({"boot_id": "another boot"}, Liveness.NOT_OURS),
        ({"uuid": "another VM"}, Liveness.NOT_OURS),
        ({"pid": 1}, Liveness.NOT_OURS),
        ({"pid": 4194305}, Liveness.NOT_OURS),
    ],
)
def test_every_part_of_the_identity_counts(state_dir: Path, change: dict[str, object], expected: Liveness) -> None:
    """A used-again process id, another boot, another VM: not ours, and never signalled."""
    record = launch(state_dir)
    changed = replace(record, **change)  # type: ignore[arg-type]
    assert process.identify(changed) is expected
    if expected is Liveness.NOT_OURS:
        process.send_signal(changed, signal.SIGKILL)
        assert asyncio.run(process.wait_exit(changed, timeout=1))
        assert process.identify(record) is Liveness.OURS


def test_a_process_that_becomes_another_program_is_ours(state_dir: Path) -> None:
    """The kernel shows no words in that moment; a VM must not be taken for gone, and left running, because somebody
    looked just then.
    """
    again = ["/bin/sh", "-c", 'exec /bin/sh -c "$0" "$0" "$1"', 'exec /bin/sh -c "$0" "$0" "$1"', UUID]
    record = launch(state_dir, again)
    words = Path(f"/proc/{record.pid}/cmdline")
    assert any(
        not words.read_bytes() for _ in range(1_000_000)
    )  # how often one is looked at in between, the scheduler decides
    assert {process.identify(record) for _ in range(2_000)} == {Liveness.OURS}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "1"}', "\x00"])
def test_a_damaged_record_is_unknown(state_dir: Path, text: str) -> None:
    """It may well run: nobody may say that it does not."""
    (state_dir / process.RECORD).write_text(text)
    assert process.liveness(state_dir) is Liveness.UNKNOWN


def test_what_cannot_be_read_is_unknown_and_not_signalled(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A /proc that hides other users' processes gives no answer."""
    record = launch(state_dir)

    def forbidden(pid: int) -> int:
        raise PermissionError(13, "hidden")

    with monkeypatch.context() as patch:
        patch.setattr(process, "start_time", forbidden)
        assert process.liveness(state_dir) is Liveness.UNKNOWN
        with pytest.raises(BackendError, match="cannot tell"):
            process.send_signal(record, signal.SIGKILL)
    assert process.liveness(state_dir) is Liveness.OURS


def test_an_ended_child_is_not_ours_and_leaves_no_zombie(state_dir: Path) -> None:
    """Its exit status is taken by whoever does so for all orphans."""
    record = launch(state_dir)
    processes.end(record)
    assert process.liveness(state_dir) is Liveness.NOT_OURS
    wait_until(lambda: not Path(f"/proc/{record.pid}").exists())


async def test_waiting_for_the_exit_is_an_event(state_dir: Path) -> None:
    """A timeout while it runs; soon when it ends."""
    record = launch(state_dir)
    assert not await process.wait_exit(record, timeout=0.01)
    waiting = asyncio.create_task(process.wait_exit(record, timeout=120))
    await asyncio.sleep(0)
    process.send_signal(record, signal.SIGTERM)
    assert await waiting
    assert await process.wait_exit(record, timeout=120)


def test_a_program_that_cannot_be_executed_is_an_error_and_leaves_nothing(state_dir: Path) -> None:
    """The error names the program and the reason."""
    with pytest.raises(BackendError, match=r"/no/such/qemu: No such file"):
        launch(state_dir, ["/no/such/qemu", "-uuid", UUID])
    assert not (state_dir / process.RECORD).exists()
    assert not (state_dir / process.AGENT_SOCKET).exists()


def test_a_starter_that_dies_before_the_record_leaves_no_process(state_dir: Path) -> None:
    """The launcher waits for the word of its parent; a parent that is gone gives none."""
    script = f"""
import os, sys
from pathlib import Path
from shed.backends.qemu import command, launchers, launching, process
process.atomic_write = lambda *a, **k: os._exit(9)
spawn = launchers._spawn
def tell(*a):
    pid = spawn(*a); print(pid, flush=True); return pid
launchers._spawn = tell
host = command.Host(Path(sys.executable), "tcg", {UUID!r})
launching.launch(Path({str(state_dir)!r}), {SLEEP!r}, host, "demo", None)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 9, done.stderr
    try:
        launcher = os.pidfd_open(int(done.stdout))
    except ProcessLookupError:
        return
    gone, _, _ = select.select([launcher], [], [], 60)
    os.close(launcher)
    assert gone, "the launcher went on without its parent"


def test_what_is_about_to_become_the_vmm_is_ours(tmp_path: Path) -> None:
    """It was recorded before it is one, and whoever looks in that moment must not take it for gone."""
    launcher = launchers.Launcher()
    try:
        record = process.Record("demo", launcher.pid, process.start_time(launcher.pid), process.boot_id(), UUID, "tcg")
        assert process.identify(record) is Liveness.OURS
    finally:
        launcher.socket.close()
        os.waitpid(launcher.pid, 0)
    assert process.identify(record) is Liveness.NOT_OURS


def test_the_next_launcher_waits_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes the next VMM; when it has died meanwhile, another does; it ends with who started it."""
    monkeypatch.setattr(launchers, "_spare", Spare())
    spawned: list[int] = []
    spawn = launchers._spawn

    def noted(descriptors: dict[int, int]) -> int:
        spawned.append(spawn(descriptors))
        return spawned[-1]

    monkeypatch.setattr(launchers, "_spawn", noted)
    records = []
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        records.append(launch(tmp_path / name))
        launchers.prepare()
        if name == "two":
            os.kill(spawned[-1], signal.SIGKILL)
            wait_until(lambda: ended(spawned[-1]))
    assert len(spawned) == 5  # the first, three in waiting, and one for the one that died
    waiting = launchers._spare.swap(None)
    assert waiting is not None
    assert waiting.pid == spawned[-1]
    waiting.socket.close()
    assert os.waitpid(waiting.pid, 0) == (waiting.pid, 0)
    for record in records:
        process.send_signal(record, signal.SIGKILL)


def test_a_process_survives_the_one_that_started_it(state_dir: Path) -> None:
    """Who comes next finds it by its record."""
    script = f"""
import sys
from pathlib import Path
from shed.backends.qemu import command, launching, process
host = command.Host(Path(sys.executable), "tcg", {UUID!r})
launching.launch(Path({str(state_dir)!r}), {SLEEP!r}, host, "demo", None)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    assert process.liveness(state_dir) is Liveness.OURS


STOPPED = """
import os, signal, sys
{before}
os.kill(os.getpid(), signal.SIGSTOP)
"""
"""A launcher that stops before it is what it was told to be."""


@pytest.mark.parametrize(
    "before",
    ["", "os.read(3, 4), os.read(3, 100_000), os.write(3, b'C%d' % os.getpid()), os.read(3, 1)"],
    ids=["at once", "recorded"],
)
async def test_a_start_that_does_not_get_on_is_given_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Who cancels it waits for nothing, however long a start may take: the process is gone, and so is its record."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(STOPPED.format(before=before))
    monkeypatch.setattr(launchers, "_PROGRAM", launcher)
    monkeypatch.setattr(launchers, "_spare", Spare())
    monkeypatch.setattr(launching, "_LAUNCH_TIMEOUT", 3600.0)
    spawned: list[int] = []
    spawn = launchers._spawn

    def noted(descriptors: dict[int, int]) -> int:
        spawned.append(spawn(descriptors))
        return spawned[0]

    monkeypatch.setattr(launchers, "_spawn", noted)
    work = stoppable(lambda stop: launching.launch(tmp_path, SLEEP, HOST, "demo", None, stop=stop))
    task = asyncio.create_task(work)
    while not spawned or Path(f"/proc/{spawned[0]}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(spawned[0], 0)
    assert process.load(tmp_path) is None
