"""The server's log: bounded, rotated with everything that goes to standard error, and its entries cannot be
multiplied.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from shed.server import logfile
from shed.server.logfile import ALIKE, LONGEST, MOST_BYTES, OLDER, SAME, OneLine, Repeats

_SERVER = """\
import logging, os, sys
from pathlib import Path
from shed.server import logfile
logfile.begin("info", Path(sys.argv[1]))
log = logging.getLogger("t")
"""


def server(logs: Path, program: str, *, name: str = "server.log") -> str:
    """Run a process whose output goes to the log, as the command line starts a server; return the names of the logs
    there are then.
    """
    with (logs / name).open("ab") as output:
        subprocess.run(
            [sys.executable, "-c", _SERVER + program, str(logs)],
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            check=False,
        )
    return " ".join(sorted(path.name for path in logs.iterdir()))


def entry(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("shed.test", logging.WARNING, "", 0, text, arguments, None)


def test_the_log_is_rotated(tmp_path: Path) -> None:
    """However much is logged: a few files, each of a bounded size, for this user alone; the last one has what came
    last.
    """
    program = f"""
logfile.ALIKE = 1 << 30
for number in range({(OLDER + 3) * MOST_BYTES // LONGEST}): log.info("%d " + "x" * {LONGEST - 100}, number)
print("to standard output", flush=True)
os.write(2, b"crash\\n")
"""
    names = server(tmp_path, program)
    assert names == "server.log server.log.1 server.log.2 server.log.3"
    assert all(path.stat().st_size < MOST_BYTES + 2 * LONGEST for path in tmp_path.iterdir())
    assert (tmp_path / "server.log").read_text().endswith("to standard output\ncrash\n")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("server.log")} == {0o600}


def test_what_a_crash_prints_is_in_the_log(tmp_path: Path) -> None:
    """A traceback that nobody caught goes to the file that is the log then, not to one that was put aside."""
    program = f"""
os.write(2, b"x" * {MOST_BYTES})
log.info("after")
raise RuntimeError("the end")
"""
    assert server(tmp_path, program) == "server.log server.log.1"
    text = (tmp_path / "server.log").read_text()
    assert "after" in text
    assert text.endswith("RuntimeError: the end\n")


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    """A server whose output goes elsewhere, as to a journal, rotates nothing."""
    (tmp_path / "server.log").write_bytes(b"")
    assert server(tmp_path, f'os.write(2, b"x" * {MOST_BYTES})\nlog.info("a")\n', name="other") == "other server.log"


def test_a_log_that_cannot_be_put_aside_is_written_to(tmp_path: Path) -> None:
    """A folder in the way loses nothing."""
    for number in range(1, OLDER + 1):
        (tmp_path / f"server.log.{number}" / "full").mkdir(parents=True)
    server(tmp_path, f'os.write(2, b"x" * {MOST_BYTES})\nlog.info("still here")\n')
    assert b"still here" in (tmp_path / "server.log").read_bytes()


def test_entries_that_repeat_are_counted(tmp_path: Path) -> None:
    """A hundred thousand of the same words are a few lines, and so are as many of other words from one place."""
    server(
        tmp_path,
        'for n in range(100_000): log.warning("it floods"); log.warning("guest says %s", n)\nlog.error("other")\n',
    )
    text = (tmp_path / "server.log").read_text()
    assert text.count("\n") == SAME + ALIKE + 3
    assert "… repeated 99,995 times, last: it floods\n" in text
    assert "… repeated 99,700 times, last: guest says 99999\n" in text
    assert text.count(" ERROR t: other\n") == 1


def test_what_was_left_out_may_come_again() -> None:
    """After a minute, with the count first; what differs was never held back."""
    now = [0.0]
    repeats = Repeats(lambda: now[0])
    assert [repeats.passes(entry("a %s", "b")) for _ in range(SAME + 2)] == [True] * SAME + [False] * 2
    assert repeats.passes(entry("c"))
    assert repeats.due() == []
    now[0] = logfile.SECONDS
    (told,) = repeats.due()
    assert told.getMessage() == "… repeated 2 times, last: a b"
    assert told.levelno == logging.WARNING
    assert repeats.passes(entry("a %s", "b"))
    assert repeats.due(now=True) == []


def test_an_entry_has_a_bounded_length() -> None:
    """Its beginning and its end are there."""
    shown = OneLine("%(message)s").format(entry("%s", "a" * 50_000 + "z"))
    assert len(shown) < LONGEST + 100
    assert shown.startswith("aaa")
    assert shown.endswith("aaz")
    assert "41809 characters" in shown
