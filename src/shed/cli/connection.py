"""The clients that a command talks through: of the server that its options mean, of the one that has a shed, of all."""

from __future__ import annotations

import os

from shed.errors import ShedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from shed.cli.options import Options
    from shed.client.locate import Result
    from shed.client.sync.api import Api

_CREATE_TIMEOUT = 600.0
_MODES = ("rw", "ro", "git-rw")
"""How a folder may be shared; the server knows what they mean."""


def client(options: Options) -> Api:
    """Return the client of the server that `options` mean."""
    from shed.client.config import resolve
    from shed.client.sync.api import Api

    return Api(resolve(options.server, config=options.config))


def client_of(shed: str, options: Options) -> Api:
    """Return the client of the server that has `shed`: the one that `options` name, or the one that says it has it."""
    from shed.names import check_shed_name

    check_shed_name(shed)
    if not has_config(options):
        return client(options)
    from shed.client.locate import locate
    from shed.client.sync.api import Api

    return Api(locate(shed, options.server, options.config))


def known_on(server: Api, options: Options) -> list[str]:
    """Return the sheds that the configuration has seen on `server`."""
    if server.address.name is None or not has_config(options):
        return []
    from shed.client.config import load

    return [shed for shed, entry in load(options.config).sheds.items() if entry.server == server.address.name]


def create_timeout(options: Options) -> float:
    """Return the seconds that a create may take when the command line does not say."""
    if not has_config(options):
        return _CREATE_TIMEOUT
    from shed.client.config import load

    return load(options.config).create_timeout or _CREATE_TIMEOUT


def dotfiles(options: Options) -> str | None:
    """Return the repository that a create gives a new shed when the command line does not say."""
    if not has_config(options):
        return None
    from shed.client.config import load

    return load(options.config).dotfiles


def has_config(options: Options) -> bool:
    """Say whether there is a configuration to read."""
    from shed.client.config import exists

    return options.config is not None or exists()


def seen(server: Api, options: Options, sheds: Mapping[str, str], *, gone: Iterable[str] = ()) -> None:
    """Note in the configuration which sheds are on `server`, by name, with their status, and which are `gone`."""
    name = server.address.name
    if name is None or not has_config(options):
        return
    from shed.client.config import load

    config = load(options.config)
    known = {shed: entry.status for shed, entry in config.sheds.items() if entry.server == name}
    gone = [shed for shed in gone if shed in known and shed not in sheds]
    if gone or any(known.get(shed) != status for shed, status in sheds.items()):
        from shed.client.config_state import remember

        remember(config, name, sheds, gone=gone)


def where(server: Api) -> str:
    """Return `` on SERVER`` for a sentence, or nothing for this machine's own server."""
    return "" if server.address.local else f" on {server.address.name or server.address}"


def refuse_server(
    options: Options, command: str, hint: str = "add `-s local`, or run it on that server's machine"
) -> None:
    """Raise `UsageError` when the options or the configuration name another server.

    For a command that works on the image store of this machine alone.
    """
    from shed.client.address import local
    from shed.client.config import resolve

    meant = resolve(options.server, config=options.config)
    if meant.path != local().path:
        raise UsageError(
            f"{command} works on the image store of this machine, so it cannot use the server {meant}", hint=hint
        )


def local_dir(words: str, server: Api) -> tuple[str, str | None]:
    """Return the absolute path of the folder in ``DIR[:MODE]``, and the mode if there is one.

    A folder on this machine is checked.  Raises `UsageError` (INVALID_LOCAL_DIR).
    """
    path, _, mode = words.rpartition(":")
    if not path or mode not in _MODES:
        path, mode = words, ""
    return _folder(path, server), mode or None


def _folder(path: str, server: Api) -> str:
    """Return `path` as an absolute one; a folder on this machine is checked.  Raises `UsageError`."""
    path = os.path.abspath(path)  # noqa: PTH100  keeps links as they are written
    if server.address.path is not None and not os.path.isdir(path):  # noqa: PTH112
        import shlex

        there = os.path.lexists(path)
        raise UsageError(
            f"{path} {'is not a folder' if there else 'does not exist'}",
            code="INVALID_LOCAL_DIR",
            hint="name a folder" if there else f"name an existing folder, or make it: mkdir -p {shlex.quote(path)}",
        )
    return path


def mounts(words: Sequence[str], server: Api) -> list[str] | None:
    """Return ``SRC:DST[:MODE]`` words with SRC as an absolute path; one on this machine is checked.

    None without any.  Raises `UsageError` (INVALID_MOUNT, INVALID_LOCAL_DIR).
    """
    from shed.client.messages import split_mount

    return [f"{_folder(source, server)}:{rest}" for source, rest in map(split_mount, words)] or None


def ask_all(
    options: Options, question: Callable[[Api], Result], *, seconds: float
) -> tuple[dict[str, Result], dict[str, ShedError]]:
    """Ask all servers at once.  Return what each one answers, and for the others the error.

    `seconds` is how long all of them have together.  This machine's own server is left out when it does not run, has
    no sheds, and others are configured.
    """
    from shed.client.config import load
    from shed.client.locate import ask
    from shed.client.transport import NotRunningError
    from shed.names import LOCAL

    config = load(options.config)
    answers = ask(config, config.names(), question, seconds=seconds)
    if isinstance(answers[LOCAL], NotRunningError) and _has_no_sheds() and len(answers) > 1:
        del answers[LOCAL]
    down = {server: answer for server, answer in answers.items() if isinstance(answer, ShedError)}
    return {server: answer for server, answer in answers.items() if not isinstance(answer, ShedError)}, down


def down_rows(down: dict[str, ShedError]) -> list[dict[str, str]]:
    """Return the servers that are down, as the JSON output has them."""
    return [{"server": server, "code": error.code, "message": error.message} for server, error in down.items()]


def report_down(options: Options, down: dict[str, ShedError]) -> None:
    """Tell people which servers are down, and why."""
    from shed.terminal.output import note

    if not options.json:
        for server, error in down.items():
            note(f"{server} is down: {error.message}")


def _has_no_sheds() -> bool:
    from shed.config.paths import Paths

    try:
        return not any(path.is_dir() for path in Paths().instances.iterdir())
    except OSError:
        return True
