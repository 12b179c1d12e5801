"""`shed list --all`: all servers are asked at once, and one that is down holds nobody up."""

from __future__ import annotations

from shed.cli.options import Options
from shed.cli.output import emit, note, table
from shed.cli.sheds import headers, row
from shed.client.config import load, remember
from shed.client.locate import ASK_TIMEOUT, ask
from shed.client.models import Shed
from shed.client.transport import NotRunningError
from shed.config.paths import Paths
from shed.errors import ShedError
from shed.names import LOCAL


def list_all(options: Options, *, quiet: bool) -> int:
    """List the sheds of all servers, and those servers that do not answer, with the reason.  Exit code 1 when none does."""
    config = load(options.config)
    answers = ask(config, config.names(), lambda client: client.sheds(timeout=ASK_TIMEOUT))
    if isinstance(answers[LOCAL], NotRunningError) and _has_no_sheds() and len(answers) > 1:
        del answers[LOCAL]  # nobody uses sheds on this machine
    sheds: list[tuple[str, Shed]] = []
    down: dict[str, ShedError] = {}
    for server, answer in answers.items():
        if isinstance(answer, ShedError):
            down[server] = answer
            continue
        sheds += [(server, shed) for shed in sorted(answer, key=lambda shed: shed.name)]
        gone = [name for name, entry in load(options.config).sheds.items() if entry.server == server]
        remember(load(options.config), server, {shed.name: shed.status for shed in answer}, gone=gone)
    if options.json:
        emit(
            {
                "sheds": [{**shed.wire, "server": server} for server, shed in sheds],
                "down": [{"server": server, "code": error.code, "message": error.message} for server, error in down.items()],
            }
        )
    elif quiet:
        print("".join(f"{shed.name}\n" for _, shed in sheds), end="")
    else:
        print(table(["SERVER", *headers(options)], [[server, *row(shed, options)] for server, shed in sheds]), end="")
    if not options.json:
        for server, error in down.items():
            note(f"{server} is down: {error.message}")
    return 1 if down and len(down) == len(answers) else 0


def _has_no_sheds() -> bool:
    try:
        return not any(path.is_dir() for path in Paths().instances.iterdir())
    except OSError:
        return True
