"""What users see: tables, ages, errors, progress."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shed.cli.errors import explain
from shed.cli.options import Options
from shed.cli.output import confirm
from shed.errors import NotFoundError, UsageError
from shed.progress import BlobEvent, BytesEvent, Event, PhaseEvent, WarningEvent, on_wait
from shed.terminal import output
from shed.terminal.progress import LiveLines, PlainLines, blob_line, line, shown, waiting


def test_a_table_lines_up_and_has_no_trailing_spaces() -> None:
    """Columns are two spaces apart."""
    assert output.table(["NAME", "X"], [["a", ""], ["longer", "1"]]) == "NAME    X\na\nlonger  1\n"


def test_a_table_fits_on_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest columns give way, the same for all rows, and say so; elsewhere nothing is cut off."""
    rows = [["dev", "registry.example/" + "x" * 90, "running"], ["y" * 63, "base", "stopped"]]
    whole = output.table(["NAME", "IMAGE", "STATUS"], rows)
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((80, 24)))
    lines = output.table(["NAME", "IMAGE", "STATUS"], rows).splitlines()
    assert max(map(len, lines)) == 80
    assert [line.endswith(("STATUS", "running", "stopped")) for line in lines] == [True] * 3
    assert "…" in lines[1]
    assert "…" in lines[2]
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((5, 24)))
    assert (
        len(output.table(["NAME", "IMAGE", "STATUS"], rows).splitlines()) == 3
    )  # there is no room; it ends all the same
    monkeypatch.undo()
    assert output.table(["NAME", "IMAGE", "STATUS"], rows) == whole


def test_the_time_of_reproducible_builds_is_no_time() -> None:
    """Nobody made an image in 1970."""
    assert output.age("1970-01-01T00:00:00Z") == "-"


def test_a_table_does_not_obey_what_it_shows() -> None:
    """A folder name with an escape sequence cannot move the cursor."""
    assert output.table(["A"], [["x\x1b[2Jy\n"]]) == "A\nx\\x1b[2Jy\\n\n"


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ("2026-01-02T00:00:00Z", "just now"),
        ("2026-01-01T23:59:59+00:00", "1 second ago"),
        ("2026-01-01T23:00:00Z", "1 hour ago"),
        ("2025-12-30T00:00:00Z", "3 days ago"),
        ("2023-01-01T00:00:00Z", "3 years ago"),
        ("2026-01-02T01:00:00Z", "just now"),
        ("0001-01-01T00:00:00Z", "-"),
        ("1970-01-01T00:00:01Z", "-"),
        ("1980-01-01T00:00:01Z", "-"),
        ("", "-"),
        ("yesterday", "yesterday"),
    ],
)
def test_ages(then: str, words: str) -> None:
    """The largest unit; a clock that runs ahead and nonsense do no harm."""
    assert output.age(then, now=datetime(2026, 1, 2, tzinfo=UTC)) == words


def test_an_error_is_a_sentence_and_a_hint(capfd: pytest.CaptureFixture[str]) -> None:
    """On standard error; the exit code is the error's own."""
    assert explain(NotFoundError("there is no shed 'x'", hint="see: shed list"), Options()) == 1
    assert explain(UsageError("no"), Options()) == 2
    assert capfd.readouterr() == ("", "error: there is no shed 'x'\nhint: see: shed list\nerror: no\n")


def test_an_error_for_machines(capfd: pytest.CaptureFixture[str]) -> None:
    """With --json, one object on standard error and nothing on standard output."""
    options = Options()
    options.json = True
    explain(NotFoundError("gone", code="SHED_NOT_FOUND", hint="h"), options)
    out, err = capfd.readouterr()
    assert (out, json.loads(err)) == ("", {"error": {"code": "SHED_NOT_FOUND", "message": "gone", "hint": "h"}})


def test_a_bug_is_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """Unless SHED_DEBUG asks for it."""
    assert explain(KeyError("k"), Options()) == 1
    err = capfd.readouterr().err
    assert err.startswith("error: KeyError: 'k'\nhint: this is a bug in shed")
    assert "Traceback" not in err


def test_what_the_system_refuses_is_no_bug(capfd: pytest.CaptureFixture[str]) -> None:
    """A file that may not be read is named, with a next step."""
    assert explain(PermissionError(errno.EACCES, "Permission denied", "/x/kit.json"), Options()) == 1
    assert explain(OSError(errno.ENOSPC, "No space left on device"), Options()) == 1
    assert capfd.readouterr().err.splitlines() == [
        "error: cannot use /x/kit.json: Permission denied",
        "hint: check who owns it",
        "error: the operating system refused: No space left on device",
        "hint: free some space, for example: shed delete NAME",
    ]


def test_a_folder_that_is_gone_is_no_bug(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell stands in it, and wonders."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        Path.cwd()
    assert explain(caught.value, Options()) == 1
    assert capfd.readouterr().err == "error: the current folder no longer exists\nhint: go to another one: cd ~\n"
    monkeypatch.chdir(tmp_path)
    explain(caught.value, Options())
    assert "this is a bug in shed" in capfd.readouterr().err


def test_debugging_shows_the_traceback(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """For whoever reports the bug."""
    monkeypatch.setenv("SHED_DEBUG", "1")
    try:
        raise KeyError("k")
    except KeyError as error:
        explain(error, Options())
    assert "Traceback" in capfd.readouterr().err


def test_an_interrupt_has_its_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    """130, as shells count."""
    assert explain(KeyboardInterrupt(), Options()) == 130
    assert capfd.readouterr().err == "interrupted\n"
    options = Options()
    options.json = True
    assert explain(KeyboardInterrupt(), options) == 130
    assert json.loads(capfd.readouterr().err)["error"]["code"] == "INTERRUPTED"


EVENTS: list[Event] = [
    PhaseEvent("vm", "starting the virtual machine"),
    BytesEvent("root", 1 << 20, 4 << 20),
    WarningEvent("it is \x1b[31mslow"),
]


def test_plain_progress_is_one_line_per_phase_and_now_and_then_a_transfer() -> None:
    """Escape sequences are not passed on."""
    stream, now = io.StringIO(), 0.0
    lines = PlainLines(stream, clock=lambda: now)
    for event in EVENTS:
        lines(event)
    now = 11.0
    lines(BytesEvent("root", 2 << 20, 4 << 20))
    lines(BytesEvent("root", 3 << 20, 4 << 20))
    assert stream.getvalue() == "starting the virtual machine\nwarning: it is \\x1b[31mslow\nroot: 2 MiB of 4 MiB\n"


def test_machines_get_warnings_alone() -> None:
    """One JSON object each, on standard error."""
    stream = io.StringIO()
    with shown(json=True, stream=stream) as sink:
        for event in EVENTS:
            sink(event)
    assert json.loads(stream.getvalue()) == {"warning": "it is \x1b[31mslow"}


def test_live_progress_leaves_warnings_and_no_line() -> None:
    """When it ends, what it drew is erased, and what the user must know stays."""
    stream = io.StringIO()
    with LiveLines(stream) as live:
        for event in EVENTS:
            live(event)
    drawn = stream.getvalue()
    assert "warning: it is \\x1b[31mslow\n" in drawn
    assert drawn.endswith("\r\x1b[J")
    assert drawn.count("\n") == 1


def blob(status: str, current: int, label: str = "rootfs") -> BlobEvent:
    """Return how far the blob `label` of 4 MiB is."""
    return BlobEvent(f"sha256:{label.encode().hex():0<64}", label, status, current << 20, 4 << 20)


def test_each_blob_has_a_live_line_while_it_comes() -> None:
    """They are drawn below the first one and over the last ones; what is here has none any more, and all are erased."""
    stream = io.StringIO()
    with LiveLines(stream) as live:
        live(PhaseEvent("blobs", "pulling"))
        for event in (blob("downloading", 1), blob("downloading", 0, "layer 2"), blob("exists", 4, "kernel")):
            live(event)
        live(WarningEvent("first"))
        live(blob("done", 4))
        live(WarningEvent("second"))
    drawn = stream.getvalue()
    after = drawn.split("warning: first\n")[1]
    assert "\n  rootfs 726f6f746673       [======                  ]  1 MiB of 4 MiB\n  layer 2 6c6179657220" in after
    assert "kernel" not in drawn
    then = after.split("warning: second\n")
    assert re.search(r"\r\x1b\[[12]A\x1b\[J$", then[0])
    assert "rootfs" not in then[1]
    assert drawn.endswith("\r\x1b[1A\x1b[J")


def test_a_blob_is_one_plain_line() -> None:
    """When it is here."""
    stream = io.StringIO()
    for event in (blob("downloading", 0), blob("downloading", 2), blob("done", 4), blob("exists", 4, "kernel")):
        PlainLines(stream)(event)
    assert stream.getvalue() == "rootfs 726f6f746673: 4 MiB\nkernel 6b65726e656c: 4 MiB, was here\n"
    assert blob_line(BlobEvent("sha256:" + "0" * 64, "layer 1", "downloading", 0, None)).split() == [
        "layer",
        "1",
        "0" * 12,
        "0",
        "bytes",
    ]


def test_the_live_line() -> None:
    """A bar where the end is known, an amount where it is not, a time where it is long."""
    assert line("work", None, 0.2, "|") == "| work"
    assert (
        line("work", BytesEvent("x", 50, 100), 3.4, "|")
        == "| work  [============            ]  50 bytes of 100 bytes  3s"
    )
    assert line("work", BytesEvent("x", 2048, None), 0, "|") == "| work  2 KiB"
    assert "=" * 24 + "]" in line("work", BytesEvent("x", 200, 100), 0, "|")


def test_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal, or with --json, a question is a refusal; --force goes ahead."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="refusing to delete"):
        confirm("Delete?", Options(), force=False)
    assert confirm("Delete?", Options(), force=True)


class Screen(io.StringIO):
    """A terminal, or a pipe, that tells when something is on it."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal
        self.written = threading.Event()

    def isatty(self) -> bool:
        """Say whether it is one."""
        return self._terminal

    def write(self, text: str) -> int:
        """Take text."""
        size = super().write(text)
        self.written.set()
        return size


def test_a_long_wait_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal by a line that goes again, elsewhere by a plain one."""
    monkeypatch.setenv("TERM", "xterm")
    for terminal in (True, False):
        screen = Screen(terminal=terminal)
        with waiting("looking", json=False, stream=screen, seconds=0.01):
            assert screen.written.wait(60)
        assert "looking" in screen.getvalue()
        assert screen.getvalue().endswith("\x1b[J" if terminal else "looking\n")


@pytest.mark.parametrize("as_json", [True, False])
def test_who_is_waited_for_is_no_warning(*, as_json: bool) -> None:
    """It is what happens now; only programs, which are told warnings alone, are warned."""
    stream = io.StringIO()
    with shown(json=as_json, stream=stream):
        on_wait.get()("waiting: another has the lock")
    told = stream.getvalue()
    assert told == ('{"warning": "waiting: another has the lock"}\n' if as_json else "waiting: another has the lock\n")


def test_a_short_wait_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is any wait with --json, nor one that has failed."""
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(terminal=True)
    with waiting("looking", json=False, stream=screen, seconds=3600):
        pass
    with pytest.raises(NotFoundError), waiting("looking", json=False, stream=screen, seconds=3600):
        raise NotFoundError("it is gone")
    with waiting("looking", json=True, stream=screen, seconds=0.0):
        assert not screen.written.wait(0.05)
    assert screen.getvalue() == ""
