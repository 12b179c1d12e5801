"""Records docs/assets/quick-start: a shed's life in a terminal, by a real run.  `make recording` runs it.

The commands run one after the other in a pseudo-terminal, with the real command line, server and a VM, in folders of
their own.  The image `base` is taken from your store (`make demo` puts it there).  What is recorded is what they wrote.
Only waiting is cut: no pause is longer than a second.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from terminal_svg import Event, svg, write_cast

ASSETS = Path(__file__).resolve().parents[1] / "docs/assets"
NAME = "quick-start"
COLUMNS, ROWS = 84, 30
BIN = Path(sys.executable).parent
COMMANDS = (
    "shed create dev --local-dir ~/hello",
    "shed exec dev -- uname -srm",
    "shed exec dev -- sh -c 'echo written in $(hostname) > note'",
    "cat hello/note",
    "shed exec dev -- sudo touch /etc/my-change",
    "shed stop dev",
    "shed start dev",
    "shed exec dev -- ls /etc/my-change",
    "shed list",
    "shed delete dev --force",
)
_WORD = 0.12
"""Seconds between two words of a command as it is typed."""
_PAUSE = 1.0


class Recorder:
    """Runs commands in a pseudo-terminal and keeps what it got, with times in which no pause is long."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.events: list[Event] = []
        self._environment = environment
        self._folder = folder
        self._now = 0.0

    def type_in(self, command: str) -> None:
        """Show a command as if somebody typed it."""
        self._add("$ ", 0.0)
        time_to_read = 0.8
        for number, word in enumerate(command.split(" ")):
            self._add(word if number == 0 else f" {word}", _WORD if number else time_to_read)
        self._add("\r\n", 0.3)

    def run(self, command: str) -> None:
        """Run it.  A failure ends the recording."""
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        started = subprocess.Popen(
            ["bash", "-c", command],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            cwd=self._folder,
            env=self._environment,
            start_new_session=True,
        )
        os.close(follower)
        last, output = time.monotonic(), b""
        while data := _read(leader):
            now = time.monotonic()
            output += data
            text = output.decode(errors="ignore")  # a character that is cut waits for its rest
            output = output[len(text.encode()) :]
            self._add(text, now - last)
            last = now
        os.close(leader)
        if started.wait():
            sys.exit(f"`{command}` ended with {started.returncode}; nothing was recorded")

    def _add(self, text: str, after: float) -> None:
        self._now += min(after, _PAUSE)
        self.events.append((self._now, text))


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # EIO: the last process has left the terminal
        return b""


def _prepare(environment: dict[str, str], folder: Path) -> None:
    """Bring the image, and wait for the template of this shape, so that starts are warm, as most are."""
    saved = folder / "base.tar"
    subprocess.run([BIN / "shed", "image", "save", "base", "-o", saved], check=True)
    subprocess.run([BIN / "shed", "image", "load", "-i", saved, "--trust-kernel"], check=True, env=environment)
    saved.unlink()
    create: list[str | Path] = [BIN / "shed", "create", "first", "--local-dir", folder / "hello"]
    subprocess.run(create, check=True, env=environment)
    subprocess.run([BIN / "shed", "delete", "first", "--force"], check=True, env=environment)
    deadline = time.monotonic() + 300
    while not list(Path(environment["SHED_DATA_DIR"]).glob("templates/vm-*/template.json")):
        if time.monotonic() > deadline:
            sys.exit("the server made no template in five minutes; its log says why")
        time.sleep(0.2)


def main() -> None:
    """Record."""
    with tempfile.TemporaryDirectory(prefix="shed-") as home:
        folder = Path(home)
        (folder / "hello").mkdir()
        (folder / "run").mkdir(mode=0o700)
        kept = {name: os.environ[name] for name in ("SHED_ACCEL", "LANG") if name in os.environ}
        environment = {
            **kept,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": home,
            "TERM": "xterm-256color",
            "XDG_RUNTIME_DIR": f"{home}/run",
            "SHED_DATA_DIR": f"{home}/data",
            "SHED_RUNTIME_DIR": f"{home}/run/shed",
        }
        recorder = Recorder(environment, folder)
        try:
            _prepare(environment, folder)
            for command in COMMANDS:
                recorder.type_in(command)
                recorder.run(command)
        finally:
            subprocess.run(
                [BIN / "shed", "delete", "dev", "--force"], check=False, env=environment, capture_output=True
            )
            subprocess.run([BIN / "shed", "server", "stop"], check=False, env=environment, capture_output=True)
    cast = write_cast(COLUMNS, ROWS, recorder.events, title="A shed's life")
    for private in (home, os.uname().nodename):
        if private in cast:
            sys.exit(f"the recording names {private}, which is nobody's business; nothing was written")
    ASSETS.mkdir(exist_ok=True)
    (ASSETS / f"{NAME}.cast").write_text(cast)
    (ASSETS / f"{NAME}.svg").write_text(svg(cast))
    sys.stdout.write(f"{ASSETS / NAME}.cast, .svg\n")


if __name__ == "__main__":
    main()
