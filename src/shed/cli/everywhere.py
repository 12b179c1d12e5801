"""What asks all servers, `shed list --all` and the like: they are asked at once, and one that is down holds nobody up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shed.cli.options import Options
from shed.cli.sheds import headers, row
from shed.client.client import Client
from shed.client.config import load
from shed.client.config_state import remember
from shed.client.locate import ASK_TIMEOUT, Result, ask
from shed.client.models import Shed
from shed.client.transport import NotRunningError
from shed.config.paths import Paths
from shed.errors import ShedError
from shed.names import LOCAL
from shed.terminal.output import emit, note, say, table


def list_all(options: Options, *, quiet: bool) -> int:
    """List the sheds of all servers, and those servers that do not answer, with the reason.

    Exit code 1 when none does.
    """
    answers, down = ask_all(options, lambda client: client.sheds(timeout=ASK_TIMEOUT), seconds=ASK_TIMEOUT)
    sheds: list[tuple[str, Shed]] = []
    for server, answer in answers.items():
        sheds += [(server, shed) for shed in sorted(answer, key=lambda shed: shed.name)]
        gone = [name for name, entry in load(options.config).sheds.items() if entry.server == server]
        remember(load(options.config), server, {shed.name: shed.status for shed in answer}, gone=gone)
    if options.json:
        emit(
            {
                "sheds": [{**shed.wire, "server": server} for server, shed in sheds],
                "down": down_rows(down),
            }
        )
    elif quiet:
        say("".join(f"{shed.name}\n" for _, shed in sheds), end="")
    else:
        say(table(["SERVER", *headers(options)], [[server, *row(shed, options)] for server, shed in sheds]), end="")
    return conclude(options, answers, down)


def ask_all(
    options: Options, question: Callable[[Client], Result], *, seconds: float
) -> tuple[dict[str, Result], dict[str, ShedError]]:
    """Return what each server answers, and what kept the others from it.

    This machine's own is left out when nobody uses it.
    """
    config = load(options.config)
    answers = ask(config, config.names(), question, seconds=seconds)
    if isinstance(answers[LOCAL], NotRunningError) and _has_no_sheds() and len(answers) > 1:
        del answers[LOCAL]
    down = {server: answer for server, answer in answers.items() if isinstance(answer, ShedError)}
    return {server: answer for server, answer in answers.items() if not isinstance(answer, ShedError)}, down


def down_rows(down: dict[str, ShedError]) -> list[dict[str, str]]:
    """Return what is told to programs about the servers that are down."""
    return [{"server": server, "code": error.code, "message": error.message} for server, error in down.items()]


def conclude(options: Options, answers: Mapping[str, object], down: dict[str, ShedError]) -> int:
    """Say which servers are down, and return the exit code: 1 when none has answered."""
    if not options.json:
        for server, error in down.items():
            note(f"{server} is down: {error.message}")
    return 0 if answers else 1


def _has_no_sheds() -> bool:
    try:
        return not any(path.is_dir() for path in Paths().instances.iterdir())
    except OSError:
        return True
