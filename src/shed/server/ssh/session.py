"""A session channel: a login shell, a command, or sftp, in the shed that the user name says."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import asyncssh

from shed.errors import BackendError, NotFoundError, UsageError
from shed.execstream import Exit, request_frame
from shed.server.failures import explain
from shed.server.ssh.command import Command
from shed.server.ssh.duplex import STDERR, Duplex, GoneError, Owner
from shed.text import visible

log = logging.getLogger(__name__)
SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12,
    "PIPE": 13, "ALRM": 14, "TERM": 15,
}  # fmt: skip
"""The signals that SSH has names for (RFC 4254, 6.10), with their numbers in the guest, which is Linux whatever this
machine is.
"""
_SIGNAL_NAMES = {number: name for name, number in SIGNALS.items()}
_NOT_STARTED = 125
"""The exit code of a command that cannot be started as it is, as the guest and docker have it."""
_LOST = 255
"""Exit status when the command's end is not known, as OpenSSH has it."""
_HELPERS = "/run/shed-runtime/helpers"
"""What the guest's runtime has for images that lack it."""
_SCP = f'command -v scp >/dev/null || scp() {{ {_HELPERS}/scp "$@"; }}\n'
"""Goes before the command by which an scp client starts the other half of it."""


class Session(Duplex, asyncssh.SSHServerSession[bytes]):
    """One session of `client`."""

    def __init__(self, client: Owner) -> None:
        super().__init__(client.connection)
        self.channel: asyncssh.SSHServerChannel[bytes]
        self._client = client
        self._words: list[str] = []
        self._fallback: list[str] = []
        self._command: Command | None = None
        self._told = False

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: object) -> bool:
        """Have the command get a terminal."""
        return True

    def connection_made(self, chan: Any) -> None:
        """Take the channel, and hear of it what asyncssh does not know."""
        super().connection_made(chan)
        chan._process_eow_at_openssh_dot_com_request = self._reader_left  # noqa: SLF001  how asyncssh finds them

    def _reader_left(self, packet: Any) -> bool:
        """Nobody reads the client's standard output any more: as in ``ssh shed-dev yes | head -1``.

        OpenSSH's clients say so, take all that still comes, and throw it away.
        """
        packet.check_end()
        if self._command is not None:
            self._command.stdout_closed()
        return True

    def shell_requested(self) -> bool:
        """Run the login shell."""
        self._client.opened("shell")
        return True

    def exec_requested(self, command: str) -> bool:
        """Run a command, as a login shell understands it."""
        self._client.opened("exec")
        if command.startswith("scp "):
            command = _SCP + command
        self._words, self._fallback = ["bash", "-lc", command], ["sh", "-lc", command]
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Run sftp; there is no other."""
        self._words, self._fallback = ["/usr/lib/openssh/sftp-server"], [f"{_HELPERS}/sftp-server"]
        if subsystem == "sftp":
            self._client.opened("sftp")
        return subsystem == "sftp"

    def session_started(self) -> None:
        """Begin."""
        self._client.spawn(self._run())

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Pass the new size on."""
        if self._command is not None:
            self._command.resize(height, width)

    def signal_received(self, signal: str) -> None:
        """Pass a signal on."""
        if self._command is not None and signal in SIGNALS:
            self._command.signal(SIGNALS[signal])

    async def _run(self) -> None:
        with contextlib.suppress(GoneError, OSError):  # whom should one tell?
            try:
                ended = await self._execute()
            except GoneError:
                raise
            except NotFoundError:
                await self._complain(f"shed {self._client.name!r} not found", 1)
            except Exception as error:  # noqa: BLE001  explain() logs what is not meant for users
                told = explain(error)
                text = f"{told.message}; {told.hint}" if told.hint else told.message
                code = (
                    _LOST if isinstance(error, BackendError) else _NOT_STARTED if isinstance(error, UsageError) else 1
                )
                await self._complain(text, code)
            else:
                await self._exit(ended)

    async def _execute(self) -> Exit:
        stream = await self._client.manager.guests.open_exec(self._client.shed(), self._tell)
        try:
            request = await self._request()
            self._command = Command(stream, self)
            return await self._command.run(request)
        finally:
            self._command = None
            stream.close()

    async def _request(self) -> bytes:
        """Return the frame that asks for the command, with environment and terminal as the client asked for them."""
        env = {_text(key): _text(value) for key, value in self.channel.get_environment_bytes().items()}
        terminal = self.channel.get_terminal_type()
        size = None
        modes: list[tuple[int, int]] = []
        if terminal is not None:
            columns, rows, *_ = self.channel.get_terminal_size()
            size = (rows, columns)
            modes = sorted(self.channel.get_terminal_modes().items())
            if terminal:
                env["TERM"] = terminal
        if agent := await self._client.agent_socket():
            env["SSH_AUTH_SOCK"] = agent
        return request_frame(
            self._words,
            fallback=self._fallback,
            tty=terminal is not None,
            size=size,
            modes=modes,
            env=[f"{key}={value}" for key, value in env.items() if key and "=" not in key and "\0" not in key + value],
            home=True,
            to_end=True,
        )

    async def _tell(self, state: str) -> None:
        if self._told or self._client.manager.catalog.get(self._client.shed())["status"] == "running":
            return
        self._told = True
        with contextlib.suppress(GoneError):  # what was begun goes on
            await self._say(f"Starting shed '{self._client.name}'...")

    async def _exit(self, ended: Exit) -> None:
        if ended.error is not None:
            await self._complain(ended.error, ended.code)
        elif ended.signal in _SIGNAL_NAMES:
            self.channel.exit_with_signal(_SIGNAL_NAMES[ended.signal])
        else:
            self.channel.exit(ended.code)

    async def _complain(self, text: str, code: int) -> None:
        await self._say(f"Error: {text}")
        self.channel.exit(code)

    async def tell(self, text: str) -> None:
        """Write a sentence to the client's standard error, if it is still there."""
        with contextlib.suppress(GoneError, OSError):
            await self._say(f"Note: {text}")

    async def _say(self, line: str) -> None:
        """Write a line of ours, in which a guest may have a part, to standard error.

        A terminal that the client has is in raw mode.
        """
        end = "\n" if self.channel.get_terminal_type() is None else "\r\n"
        await self.write((visible(line) + end).encode(errors="replace"), STDERR)


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")
