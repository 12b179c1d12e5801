"""Finding the server that has a shed, when the user named none.

What the configuration remembers is a guess until a server confirms it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from shed.client.address import Address
from shed.client.config import Config, load, resolve
from shed.client.config_state import remember
from shed.client.messages import complete_shed
from shed.client.sync.api import Api
from shed.errors import NotFoundError, ShedError, UnavailableError, UsageError

ASK_TIMEOUT = 5.0
"""Seconds that each of several servers has, when all are asked at once."""
Result = TypeVar("Result")


def locate(shed: str, server: str | None, config: str | None) -> Address:
    """Return the address of the server that has `shed`.

    It is the one that the user named, whatever it has, else one that says that it has the shed.

    A memory that turns out wrong is corrected.  Raises `NotFoundError`, and `UsageError` (AMBIGUOUS_SHED) when several
    have one.
    """
    guess = resolve(server, config=config, shed=shed)
    if not guess.guess:
        return guess
    try:
        found = Api(guess).shed(shed)
    except NotFoundError as error:
        if error.code != "SHED_NOT_FOUND":
            raise
        return elsewhere(shed, guess, config, error)
    except UnavailableError as error:
        error.hint = f"{error.hint}; another server is named with -s" if error.hint else "name another server with -s"
        raise
    remember(load(config), guess.name, {shed: complete_shed(found)["status"]})
    return guess


def elsewhere(shed: str, wrong: Address, config: str | None, error: NotFoundError) -> Address:
    """Return the address of the one server, other than `wrong`, that has `shed`; `error` is what `wrong` said.

    See `locate`.
    """
    known = load(config)
    remember(known, wrong.name, {}, gone=[shed])
    answers = ask(
        known,
        [name for name in known.names() if name != wrong.name],
        lambda client: client.shed(shed, timeout=ASK_TIMEOUT),
    )
    found = {name: answer for name, answer in answers.items() if isinstance(answer, dict)}
    if len(found) > 1:
        places = " and ".join(found)
        raise UsageError(
            f"{places} both have a shed {shed!r}", code="AMBIGUOUS_SHED", hint="say which one is meant: -s SERVER"
        )
    down = [name for name, answer in answers.items() if isinstance(answer, UnavailableError)]
    if not found:
        more = f" ({', '.join(down)} could not be asked)" if down else ""
        raise NotFoundError(
            f"no server has a shed {shed!r}{more}", code="SHED_NOT_FOUND", hint="see: shed list --all"
        ) from None
    (name,) = found
    remember(known, name, {shed: complete_shed(found[name])["status"]})
    return known.address(name)


def ask(
    config: Config, servers: Iterable[str], question: Callable[[Api], Result], *, seconds: float = ASK_TIMEOUT
) -> dict[str, Result | ShedError]:
    """Return what each server answers, or the error that it ends with.

    All are asked at once, and have `seconds` together.

    This machine's own server is not started for it.
    """
    names = list(servers)
    answers: dict[str, Result | ShedError] = {}

    def one(name: str) -> None:
        try:
            address = config.address(name)
            address.local = False  # so that nobody starts it
            answers[name] = question(Api(address))
        except ShedError as error:
            answers[name] = error

    # Not a pool: whoever hangs in a name's resolution, or in ssh, must not keep the process from ending.
    threads = [threading.Thread(target=one, args=(name,), daemon=True) for name in names]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = UnavailableError(f"no answer within {seconds:g} s", code="TIMEOUT", hint="is the machine up, and reachable?")
    return {name: answers.get(name, late) for name in names}
