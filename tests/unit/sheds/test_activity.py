"""When a shed is at idleness: by its users, its connections, and the processor that its VM wants."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shed.sheds.activity import Counted, Idleness, Use, between
from shed.sheds.load import Threads, threads_of
from support.waiting import wait_until

HOUR = 3600.0


def vm(ran: float, waited: float = 0.0) -> Threads:
    """Return what the one thread of a VM has had."""
    return {"1": (ran, waited)}


def test_one_that_nobody_uses_is_at_rest_after_its_time() -> None:
    """What it takes of the processor when nothing runs there does not count."""
    idleness = Idleness(HOUR, 100.0)
    for minute in range(0, 61, 2):
        assert idleness.is_due(100.0 + minute * 60)
        idleness.look(100.0 + minute * 60, vm(minute * 60 * 0.02), flows=False)
        assert idleness.left(100.0 + minute * 60) == HOUR - minute * 60
    assert not idleness.is_due(100.0 + HOUR + 1)


def test_a_use_begins_the_time_anew() -> None:
    """From its end on."""
    idleness = Idleness(HOUR, 0.0)
    idleness.use(HOUR - 1)
    assert idleness.left(HOUR) == HOUR - 1


def test_a_connection_counts_when_it_stays() -> None:
    """One that is there at one look alone does not."""
    idleness = Idleness(HOUR, 0.0)
    for moment, flows in ((0, False), (120, True), (240, False), (360, True)):
        idleness.look(float(moment), vm(0), flows=flows)
        assert idleness.left(float(moment)) == HOUR - moment
    idleness.look(480.0, vm(0), flows=True)
    assert idleness.left(480.0) == HOUR


@pytest.mark.parametrize(
    ("share", "every", "sleeps"),
    [
        (1.0, 120, False),  # a program that computes
        (0.1, 120, False),  # one that computes now and then
        (0.2, 1200, True),  # a job each 20 minutes that takes 24 seconds
        (0.03, 120, True),  # the guest by itself
    ],
)
def test_what_runs_in_it(share: float, every: int, *, sleeps: bool) -> None:
    """What takes the processor has it stay awake; a job that is short and rare does not."""
    idleness, ran = Idleness(HOUR, 0.0), 0.0
    for moment in range(0, 3 * 3600, 120):
        idleness.look(float(moment), vm(ran), flows=False)
        if idleness.left(float(moment)) <= 0:
            break
        if not moment % every:
            ran += share * 120
    assert (idleness.left(float(moment)) <= 0) is sleeps


def test_after_work_the_whole_time_is_left() -> None:
    """Ten minutes of work: it is suspended one time after their end, not later."""
    idleness = Idleness(HOUR, 0.0)
    for moment in range(0, 601, 120):
        idleness.look(float(moment), vm(float(moment)), flows=False)
    for moment in range(720, 4080, 120):
        idleness.look(float(moment), vm(600.0), flows=False)
        assert 0 < idleness.left(float(moment)) <= 4200 - moment
    idleness.look(4200.0, vm(600.0), flows=False)
    assert idleness.left(4200.0) <= 0


@pytest.mark.parametrize(
    ("ran", "waited", "sleeps"),
    [
        (1.2, 118.8, False),  # it computes, and gets a hundredth
        (1.2, 60, True),  # it does little, and waits for that
        (4, 60, False),  # it would do 6 %
        (3, 0, True),
    ],
)
def test_neighbours_cannot_have_it_look_idle(ran: float, waited: float, *, sleeps: bool) -> None:
    """What counts is what it had of the time in which it did not wait."""
    idleness = Idleness(HOUR, 0.0)
    for look in range(31):
        idleness.look(look * 120.0, vm(look * ran, look * waited), flows=False)
    assert (idleness.left(HOUR) <= 0) is sleeps


def test_threads_come_and_go() -> None:
    """What they ran adds up; of their waits the longest counts, and none is longer than the time."""
    assert between(vm(5, 1), {"1": (6, 2), "2": (3, 30)}, 10) == (4, 10)
    assert between({"gone": (50, 0)}, vm(2, 1), 10) == (2, 1)
    assert between(vm(7), {}, 10) == between(vm(7), vm(7), 10) == (0, 0)


def test_a_time_holds_few_looks() -> None:
    """However often somebody looks."""
    idleness = Idleness(HOUR, 0.0)
    looks = 0
    for moment in range(3 * 3600):
        if idleness.is_due(float(moment)):
            idleness.look(float(moment), vm(0), flows=False)
            looks += 1
    assert looks < 100


class Silent:
    """A stream that does nothing."""

    closed = 0

    async def read(self, limit: int = 65536) -> bytes:
        return b""

    async def write(self, data: bytes | bytearray | memoryview) -> None: ...

    async def write_eof(self) -> None: ...

    def close(self) -> None:
        self.closed += 1


def test_streams_are_counted_until_they_are_closed() -> None:
    """Once, however often that is; the end of the last one is a use."""
    now = 0.0
    use = Use(lambda: now)
    idleness = use.watched["dev"] = Idleness(HOUR, 0.0)
    use.begin("dev")
    use.begin("dev")
    first, second = (Counted(Silent(), lambda: use.end("dev")) for _ in range(2))
    now = 100.0
    first.close()
    first.close()
    assert (use.is_open("dev"), use.is_open("other")) == (True, False)
    now = 200.0
    second.close()
    assert (use.is_open("dev"), idleness.left(200.0)) == (False, HOUR)


def test_threads_of_a_real_process() -> None:
    """Each has its time; what has ended raises."""
    work = "import threading\nfor _ in range(2): threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()"
    with subprocess.Popen([sys.executable, "-c", work]) as process:
        wait_until(lambda: sum(ran > 0.05 for ran, _ in threads_of(process.pid).values()) >= 2)
        process.kill()
        process.wait()
        with pytest.raises(OSError, match=str(process.pid)):
            threads_of(process.pid)


def test_a_kernel_that_does_not_count(tmp_path: Path) -> None:
    """Then it is the time of the process."""
    fields = ["S", *("0" for _ in range(10)), "150", "50", *("0" for _ in range(8)), "7", "0"]
    (tmp_path / "9/task/9").mkdir(parents=True)
    (tmp_path / "9/task/9/schedstat").write_text("0 0 0\n")
    (tmp_path / "9/stat").write_text(f"9 (a) {' '.join(fields)}\n")
    assert threads_of(9, tmp_path) == {"": (200 / os.sysconf("SC_CLK_TCK"), 0.0)}
