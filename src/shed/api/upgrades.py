"""What is spoken on a connection after ``101 Switching Protocols``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from shed.api.base import PartialAnswer, says
from shed.guest import protocol

EXEC, CONNECT, LOG = "shed-exec", "shed-tcp", "shed-log"


class ExecRequest(PartialAnswer, kw_only=True, frozen=True):
    """The command to run."""

    cmd: Annotated[list[str], says("Program and arguments; empty: the user's login shell.")]
    env: Annotated[list[str], says("`NAME=VALUE` each.", optional=True)] = []
    tty: Annotated[bool, says("Give it a terminal.", optional=True)] = False
    rows: Annotated[int, says("Lines of the terminal.", optional=True)] = 0
    cols: Annotated[int, says("Columns of the terminal.", optional=True)] = 0
    working_dir: Annotated[
        str, says("Where it starts; absent: the image's WorkingDir, or `/workspace`.", optional=True)
    ] = ""
    user: Annotated[str, says("Who runs it; absent: the image's User, `shed`, or root.", optional=True)] = ""
    fallback: Annotated[list[str], says("What runs when the image lacks the program.", optional=True)] = []
    home: Annotated[bool, says("Start in the user's home instead.", optional=True)] = False
    to_end: Annotated[
        bool, says("End when nobody holds its output any more, and not 2 s after the command's own end.", optional=True)
    ] = False
    modes: Annotated[
        list[tuple[int, int]], says("Modes of the terminal, as in RFC 4254, section 8.", optional=True)
    ] = []


class Resize(PartialAnswer, kw_only=True, frozen=True):
    """A new size of the terminal."""

    rows: Annotated[int, says("Lines.")]
    cols: Annotated[int, says("Columns.")]


class Signal(PartialAnswer, kw_only=True, frozen=True):
    """A signal for the command and what it started."""

    signal: Annotated[int, says("Its number.", minimum=1, maximum=64)]


class Exit(PartialAnswer, kw_only=True, frozen=True):
    """How the command ended."""

    code: Annotated[int, says("0 to 255.", minimum=0, maximum=255)]
    error: Annotated[str, says("Why it did not start.", optional=True)] = ""
    signal: Annotated[int, says("The signal that ended it.", optional=True)] = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the exec stream: type (1 byte), length (4 bytes, big-endian), payload."""

    kind: int
    name: str
    sender: Literal["client", "server"]
    payload: type[Any] | str
    """The struct of its JSON, or what its bytes are."""


FRAMES = (
    Frame(protocol.EXEC_REQUEST, "request", "client", ExecRequest),
    Frame(protocol.RESIZE, "resize", "client", Resize),
    Frame(protocol.SIGNAL, "signal", "client", Signal),
    Frame(protocol.DATA_FRAME, "stdin", "client", "bytes of standard input; empty: keepalive"),
    Frame(protocol.STDIN_EOF, "stdin end", "client", "empty; signals and resizes may follow"),
    Frame(protocol.STDOUT_CLOSED, "stdout closed", "client", "empty; nobody reads it any more, so writes to it fail"),
    Frame(protocol.DATA_FRAME, "stdout", "server", "bytes of standard output, or of the terminal; empty: keepalive"),
    Frame(protocol.STDERR, "stderr", "server", "bytes of standard error"),
    Frame(
        protocol.STDIN_TAKEN,
        "stdin taken",
        "server",
        f"4 bytes, big-endian: the command took so many more bytes of standard input; a client sends at most "
        f"{protocol.STDIN_WINDOW} bytes beyond what it was told",
    ),
    Frame(protocol.EXIT_CODE, "exit", "server", Exit),
)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A protocol that a connection can go on with."""

    protocol: str
    description: str


UPGRADES = {
    EXEC: Upgrade(
        EXEC,
        f"Frames both ways, of at most {protocol.MAX_PAYLOAD} bytes: the client sends `request` first, the server "
        "`exit` last.  A side skips frames of types that it does not know.  A client that hangs up ends its command.",
    ),
    CONNECT: Upgrade(CONNECT, "The bytes of the TCP connection; each side may end its half first."),
    LOG: Upgrade(LOG, "The bytes of the console log, and what follows, until the shed is deleted."),
}
