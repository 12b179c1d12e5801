"""A pseudo-terminal with `shed` in it, as a user would sit in front of."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping

SHED = [sys.executable, "-m", "shed.cli.main"]
TIMEOUT = 120.0


class Terminal:
    """A pseudo-terminal, and `shed` as the leader of its session."""

    def __init__(self) -> None:
        self.keyboard, self.line = pty.openpty()
        self.resize(31, 97)
        self.before = termios.tcgetattr(self.line)
        self.process: subprocess.Popen[bytes] | None = None
        self._shown = b""
        """What was read and not asked for yet."""

    def run(
        self, *words: str, stdout: int | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `shed` with all three descriptors on the terminal, but for those given."""
        return self.start(*SHED, *words, stdout=stdout, env=env)

    def start(
        self, *words: str, stdout: int | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start any program likewise."""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *words],
            stdin=self.line,
            stdout=self.line if stdout is None else stdout,
            stderr=self.line,
            env={**(os.environ if env is None else env), "TERM": "xterm-kitty"},
        )
        return self.process

    def resize(self, rows: int, columns: int) -> None:
        """Change the window; who runs in the terminal gets SIGWINCH."""
        fcntl.ioctl(self.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.keyboard, keys)

    def read_until(self, wanted: bytes) -> bytes:
        """Return what is shown next, up to and with `wanted`."""
        seen, self._shown = self._shown, b""
        deadline = time.monotonic() + TIMEOUT
        waiting = select.poll()
        waiting.register(self.keyboard, select.POLLIN)
        while wanted not in seen:
            assert waiting.poll(max(0, deadline - time.monotonic()) * 1000), seen
            seen += os.read(self.keyboard, 65536)
        end = seen.index(wanted) + len(wanted)
        self._shown = seen[end:]
        return seen[:end]

    def raw(self) -> bool:
        """Whether keys arrive as they are."""
        flags = termios.tcgetattr(self.line)[3]
        return not flags & (termios.ICANON | termios.ECHO | termios.ISIG)

    def restored(self) -> bool:
        """Whether it is as it was in the beginning."""
        return termios.tcgetattr(self.line) == self.before

    def close(self) -> None:
        """End it all."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.keyboard)
        os.close(self.line)
