"""The log of decisions: bounded, rotated, read from its end, and honest about what it lacks."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from shed.egress import decisions
from shed.egress.decisions import Decisions, last


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "egress.log"


def numbers(entries: list[dict[str, Any]]) -> list[int]:
    """Return what tells the entries of these tests apart."""
    return [entry["port"] for entry in entries]


def test_the_last_entries_of_a_shed_are_found_across_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they were written, other sheds' entries left out, and of old files only so many kept."""
    monkeypatch.setattr(decisions, "FILE_SIZE", 2000)
    monkeypatch.setattr(decisions, "_BLOCK", 64)
    log = Decisions(path)
    for number in range(200):
        log.add({"shed": "dev" if number % 2 else "other", "port": number})
    assert numbers(last(path, "dev", 5)) == [191, 193, 195, 197, 199]
    assert numbers(last(path, "other", 30)) == list(range(140, 200, 2))
    assert last(path, "dev", 0) == last(path, "de", 10) == []
    kept = numbers(last(path, "dev", 1000))
    assert kept == list(range(kept[0], 200, 2))
    assert kept[0] > 1
    files = sorted(path.parent.iterdir())
    assert len(files) == decisions.FILES + 1
    assert all(file.stat().st_size <= 2000 and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


def test_what_is_no_entry_is_passed_over(path: Path) -> None:
    """A line that a full disk has torn, one of another program, and an empty file."""
    assert last(path, "dev", 3) == []
    path.write_text("")
    assert last(path, "dev", 3) == []
    path.write_text('{"shed":"dev","port":1}\n{"shed":"dev","po\n["dev"]\n"dev"\n{"shed":"dev","port":2}')
    assert numbers(last(path, "dev", 3)) == [1, 2]


def test_too_many_entries_of_one_shed_are_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no entry of another is left out for them; a minute later the log says how many are missing."""
    monkeypatch.setattr(decisions, "MOST_ENTRIES", 10)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    log = Decisions(path)
    for number in range(25):
        assert log.add({"shed": "dev", "port": number})["port"] == number
    log.add({"shed": "other", "port": 1})
    assert (numbers(last(path, "dev", 100)), numbers(last(path, "other", 100))) == (list(range(10)), [1])
    assert log.turn() == []
    now[0] += 61
    told = log.turn()
    assert [(entry["shed"], entry["left_out"]) for entry in told] == [("dev", 15)]
    assert last(path, "dev", 1) == told
    assert (log.left_out["dev"], log.turn()) == (15, [])


def test_a_log_on_a_full_disk_ends_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is counted, a torn line does not spoil the next one, and the log says later what it lacks."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    log, write, room = Decisions(path), os.write, [100]

    def short(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = write(descriptor, data[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(os, "write", short)
    for number in range(5):
        log.add({"shed": "dev", "port": number})
    assert log.left_out["dev"] == 4
    room[0] = 10_000
    log.add({"shed": "dev", "port": 5})
    now[0] += 61
    log.turn()
    assert [entry.get("port", entry.get("left_out")) for entry in last(path, "dev", 10)] == [0, 5, 4]


def test_one_that_takes_over_and_the_one_before_write_to_the_same_log(path: Path) -> None:
    """Also when the file was rotated by the other one in between."""
    old, new = Decisions(path), Decisions(path)
    for number, log in enumerate((old, new, old)):
        log.add({"shed": "dev", "port": number})
    path.rename(path.with_name("egress.log.1"))
    for number, log in enumerate((new, old, new), 3):
        log.add({"shed": "dev", "port": number})
    assert [json.loads(line)["port"] for line in path.read_text().splitlines()] == [3, 4, 5]
    assert numbers(last(path, "dev", 10)) == [0, 1, 2, 3, 4, 5]
