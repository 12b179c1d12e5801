"""The tmux sessions in sheds: those of the shed's usual user, as tmux itself knows them.

Nothing of them is kept on the host.  A shed that is not running has none, and is never started to find out.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from shed.errors import BackendError, ConflictError, NotFoundError, ShedError, UnavailableError
from shed.names import check_session_name
from shed.sheds.commands import Done, run
from shed.sheds.manager import Manager
from shed.text import visible
from shed.untrusted import number, told

_WAIT = 5.0
"""Seconds for a shed's tmux to answer."""
_FORMAT = "#{session_created} #{session_attached} #{session_windows} #{session_name}"
_MOST_SESSIONS, _LONGEST_LINE = 1000, 500
"""Of one shed, and in characters of what tmux says of one; no name of a session that `shed attach` takes is longer."""
_LATEST = 1 << 37
"""The most that a number in it can be; as seconds since 1970, in the year 6325."""
_NO_SERVER = ("no server running", "error connecting to")
"""How tmux says that it has no sessions: its server ends with the last one."""
Session = dict[str, Any]


class NoTmuxError(UnavailableError):
    """The image of a shed has no tmux."""

    code = "TMUX_NOT_AVAILABLE"


async def list_sessions(manager: Manager, name: str) -> list[Session]:
    """Return the sessions of the running shed `name`, by name.

    Raises `NoTmuxError`, `NotFoundError` and `ConflictError` (SHED_ALREADY_STOPPED) for the shed, and `BackendError`.
    """
    done = await _tmux(manager, name, "list-sessions", "-F", _FORMAT)
    if done.code and done.stderr.startswith(_NO_SERVER):
        return []
    _check(done, name)
    lines = done.stdout.splitlines()
    if len(lines) > _MOST_SESSIONS:
        raise BackendError(
            f"tmux in shed {name!r} names {len(lines)} sessions, {_MOST_SESSIONS} is the most", code="TMUX_FAILED"
        )
    return sorted((_parse(line, name) for line in lines), key=lambda session: str(session["name"]))


async def all_sessions(manager: Manager) -> tuple[list[Session], list[str]]:
    """Return the sessions of all running sheds, and a warning for each shed that could not be asked."""
    sheds, warnings = await asyncio.to_thread(manager.catalog.list)
    running = [str(shed["name"]) for shed in sheds if shed["status"] == "running"]
    warnings += [f"{shed['name']}: {shed['detail']}" for shed in sheds if shed["status"] == "error"]
    answers = await asyncio.gather(*(_asked(manager, name) for name in running))
    found = [session for answer in answers if isinstance(answer, list) for session in answer]
    return found, [*warnings, *(answer for answer in answers if isinstance(answer, str))]


async def kill_session(manager: Manager, name: str, session: str) -> None:
    """End a session and what runs in it.

    Raises `NotFoundError` (SESSION_NOT_FOUND) besides what `list_sessions` raises.
    """
    check_session_name(session)
    done = await _tmux(manager, name, "kill-session", "-t", f"={session}")
    if done.code and session not in {found["name"] for found in await list_sessions(manager, name)}:
        raise NotFoundError(
            f"shed {name!r} has no session {session!r}",
            code="SESSION_NOT_FOUND",
            hint=f"`shed sessions {name}` shows what there is",
        )
    _check(done, name)


async def _asked(manager: Manager, name: str) -> list[Session] | str:
    """Return the sessions of one of many sheds, or why they are not known."""
    try:
        async with asyncio.timeout(_WAIT):
            return await list_sessions(manager, name)
    except (NoTmuxError, NotFoundError, ConflictError):  # it can have none, or has stopped meanwhile
        return []
    except ShedError as error:
        return f"{name}: {error.message}"
    except TimeoutError:
        return f"{name}: it did not answer within {_WAIT:g} s"


async def _tmux(manager: Manager, name: str, *words: str) -> Done:
    done = await run(await manager.guests.open_exec(name, autostart=False, looks=True), ["tmux", *words], wait=_WAIT)
    if done.error is not None and done.code == 127:
        raise NoTmuxError(
            f"the image of shed {name!r} has no tmux", hint=f"install it in the shed, or use: shed console {name}"
        )
    return done


def _check(done: Done, name: str) -> None:
    if done.code:
        raise BackendError(f"tmux in shed {name!r}: {done.error or told(done.stderr.strip())}", code="TMUX_FAILED")


def _parse(line: str, shed: str) -> Session:
    try:
        *words, name = line[:_LONGEST_LINE].split(" ", 3)
        created, attached, windows = (number(word, 0, _LATEST) for word in words)
        if created is None or attached is None or windows is None:
            raise ValueError("no number")
        when = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"name": visible(name), "shed": shed, "created_at": when, "attached": attached, "windows": windows}
    except ValueError:
        raise BackendError(f"tmux in shed {shed!r} said {told(line, 80)!r}", code="TMUX_FAILED") from None
