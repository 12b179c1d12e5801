"""Starting a command as a user, and what its end means."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import fcntl
import os
import resource

from shed.guest.tasks import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.guest.loop import Loop
    from shed.guest.users import User

NOT_RUN = 125
"""Exit code when the agent could not do what was asked; 126 and 127 speak of the command, as in a shell."""
NOT_EXECUTABLE = 126
NOT_FOUND = 127
_OPEN_FILES = 1024
"""Soft limit of open files of a command, for programs that use select(2); they can raise it to ours."""
_TIOCSCTTY = 0x540E
"""ioctl: make a terminal the controlling one, asm-generic/ioctls.h."""


class StartError(Exception):
    """The command did not start; `code` is the exit code that says why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Process:
    """A started command, the leader of its own session and process group."""

    def __init__(self, loop: Loop, pid: int) -> None:
        self.pid = pid
        self.ended = Event()
        self.code = 0
        """0..255 once it ended; 128 + n when signal n ended it."""
        self.signal = 0
        loop.on_exit(pid, self._ended)

    def signal_group(self, number: int) -> None:
        """Send a signal to its process group, as long as the number is surely its own."""
        if not self.ended.is_set:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass

    def _ended(self, status: int) -> None:
        if os.WIFSIGNALED(status):
            self.signal = os.WTERMSIG(status)
            self.code = 128 + self.signal
        else:
            self.code = os.WEXITSTATUS(status)
        self.ended.set()


async def start(
    loop: Loop,
    commands: list[tuple[str, list[str]]],
    *,
    env: dict[str, str],
    user: User,
    folders: list[str],
    stdio: tuple[int, int, int],
    terminal: bool,
) -> Process:
    """Start the first of `commands` that is there: a program, found through the PATH in `env`, and its argv.

    It starts in the first of `folders` that can be entered.  `stdio` are its descriptors 0, 1 and 2; with `terminal`
    the first becomes its controlling terminal.  Raises `StartError`, and `OSError` when the machine has no room for
    another process.
    """
    told, telling = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        os.close(told)
        os.close(telling)
        raise
    if pid == 0:
        _become(commands, env=env, user=user, folders=folders, stdio=stdio, terminal=terminal, telling=telling)
    os.close(telling)
    process = Process(loop, pid)
    watch = loop.watch(told)
    try:
        told_text = await watch.read(4096)
    finally:
        watch.close()
    if told_text:
        await process.ended.wait()
        code, _, text = told_text.decode(errors="replace").partition(" ")
        raise StartError(int(code), text)
    return process


def _become(
    commands: list[tuple[str, list[str]]],
    *,
    env: dict[str, str],
    user: User,
    folders: list[str],
    stdio: tuple[int, int, int],
    terminal: bool,
    telling: int,
) -> None:
    """In the child: turn into the command, or tell why not and end.  Never returns."""
    try:
        os.setsid()
        if terminal:
            fcntl.ioctl(stdio[0], _TIOCSCTTY, 0)
        for number, fd in enumerate(stdio):
            os.dup2(fd, number)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, hard), hard))
        _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
        _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
        if os.geteuid() == 0:
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        error = _enter(folders) or _execute_first(commands, env)
    except BaseException as failure:  # noqa: BLE001  nothing may ever leave this function
        error = f"{NOT_RUN} cannot start {commands[0][0]}: {failure}"
    try:
        os.write(telling, error.encode(errors="replace")[:4096])
    finally:
        os._exit(NOT_RUN)


def _enter(folders: list[str]) -> str:
    """Go to the first folder that lets us in; return what is wrong with the last."""
    error = ""
    for folder in folders:
        try:
            os.chdir(folder)
        except OSError as failure:
            error = f"{NOT_EXECUTABLE} cannot go to {folder}: {os.strerror(failure.errno or 0)}"
        else:
            return ""
    return error


def _execute_first(commands: list[tuple[str, list[str]]], env: dict[str, str]) -> str:
    """Execute the first command that is there; return why that failed, or that the first one is not there."""
    errors = []
    for program, argv in commands:
        errors.append(_execute(program, argv, env))
        if not errors[-1].startswith(f"{NOT_FOUND} "):
            return errors[-1]
    return errors[0]


def _execute(program: str, argv: list[str], env: dict[str, str]) -> str:
    """Execute the program; return why that failed."""
    places = (
        [program] if "/" in program else [f"{folder or '.'}/{program}" for folder in env.get("PATH", "").split(":")]
    )
    why = ""
    for place in places:
        try:
            os.execve(place, argv, env)
        except OSError as failure:
            if failure.errno == errno.ENOEXEC:
                why = why or "not a program of this machine's kind"
            elif failure.errno not in {errno.ENOENT, errno.ENOTDIR}:
                why = why or os.strerror(failure.errno or 0)
            elif os.access(place, os.F_OK):
                why = why or "its interpreter or loader is not in this image"
    if why:
        return f"{NOT_EXECUTABLE} {program}: {why}"
    return f"{NOT_FOUND} {program}: {'no such file' if '/' in program else 'command not found'}"
