"""``shed-server``: the program on the machine that hosts the VMs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from shed.config.paths import Paths
from shed.config.server import find_settings, load_settings
from shed.errors import ShedError, UsageError, of_os_error
from shed.text import visible_lines
from shed.version import VERSION

if TYPE_CHECKING:
    from shed.backends.interface import Backend
    from shed.config.server import Settings
    from shed.progress import Event

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `shed-server` with these command line arguments and return its exit code."""
    try:
        options = server_parser().parse_args(arguments)
        return int(options.run(options))
    except ShedError as error:
        told = error
    except OSError as error:
        refusal = of_os_error(error)
        if refusal is None:
            raise
        told = refusal
    except KeyboardInterrupt:
        print("shed-server: interrupted", file=sys.stderr)  # noqa: T201
        return _INTERRUPTED
    print(f"shed-server: {visible_lines(told.message)}", file=sys.stderr)  # noqa: T201
    if told.hint:
        print(f"  {visible_lines(told.hint)}", file=sys.stderr)  # noqa: T201
    return told.exit_code


class _Parser(argparse.ArgumentParser):
    """Errors are `UsageError`, nothing is abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise the problem instead of ending the process."""
        raise UsageError(message, hint=f"see: {self.prog} --help")


def server_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(prog="shed-server", description="Hosts sheds on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run in the foreground, until SIGTERM or ctrl-C; sheds keep running")
    serve.add_argument(
        "--config", type=Path, metavar="FILE", help="default: server.yaml here, in ~/.config/shed, in /etc/shed"
    )
    serve.add_argument("--listen", metavar="HOST:PORT", help="also listen on TCP, loopback only")
    serve.add_argument("--socket", type=Path, metavar="PATH", help="Unix socket (default: in SHED_RUNTIME_DIR)")
    serve.set_defaults(run=_serve)
    install = commands.add_parser(
        "install", help="make the server a service of systemd, which starts with this machine; root's, or yours"
    )
    install.add_argument(
        "--config", type=Path, metavar="FILE", help="the configuration that it reads; default: as serve"
    )
    install.add_argument("--run-as", metavar="USER", help="whom the machine's service runs as (default: root)")
    uninstall = commands.add_parser("uninstall", help="remove the service; sheds keep running, and all data stays")
    for command, run in ((install, _install), (uninstall, _uninstall)):
        command.add_argument(
            "--user", action="store_true", help="the service of this user; the default for all but root"
        )
        command.set_defaults(run=run)
    validate = commands.add_parser(
        "config-validate", help="say whether a server would start with the configuration; exit code 2 when not"
    )
    validate.add_argument(
        "--config", type=Path, metavar="FILE", help="default: the configuration that a server would find"
    )
    validate.set_defaults(run=_config_validate)
    pull = commands.add_parser("pull-images", help="pull the images that the configuration names and that are not here")
    pull.add_argument("--variant", metavar="NAME", help="only this one of image_aliases")
    pull.add_argument("--config", type=Path, metavar="FILE", help="default: the configuration that a server would find")
    pull.add_argument("--json", action="store_true", help="machine output")
    pull.set_defaults(run=_pull_images)
    warm = commands.add_parser(
        "warm", help="make the templates that VMs are restored from, before anybody waits for a shed"
    )
    warm.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="CPUSxMEMORY",
        help="for example 2x4G; default: that of a new shed",
    )
    warm.add_argument("--config", type=Path, metavar="FILE", help="default: the configuration that a server would find")
    warm.add_argument("--json", action="store_true", help="machine output")
    warm.set_defaults(run=_warm)
    doctor = commands.add_parser("doctor", help="look for what is wrong with this host; exit code 1 when something is")
    doctor.add_argument(
        "--config", type=Path, metavar="FILE", help="the configuration to check, instead of the one a server would find"
    )
    doctor.add_argument("--json", action="store_true", help="machine output")
    doctor.add_argument(
        "--security", action="store_true", help="look at what keeps guests, other users and strangers out, by trying it"
    )
    doctor.set_defaults(run=_doctor)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


def _serve(options: argparse.Namespace) -> int:
    from shed.server import logfile  # noqa: PLC0415  `version` and a wrong option should not wait for all this
    from shed.server.app import Server  # noqa: PLC0415
    from shed.server.listen import parse_listen  # noqa: PLC0415
    from shed.server.run import serve  # noqa: PLC0415
    from shed.sheds.manager import Manager  # noqa: PLC0415
    from shed.sheds.pins import open_images  # noqa: PLC0415

    settings = load_settings(options.config)
    if options.listen is not None:
        host, port = parse_listen(options.listen)
        settings = replace(settings, bind_address=host, http_port=port)
    paths = Paths()
    logfile.begin(settings.log_level, paths.logs)
    if options.socket is not None:
        paths.socket = options.socket.absolute()
    images = open_images(paths, settings)
    backend = _backend(paths, settings)
    serve(Server(paths, settings, Manager(paths, backend, images.resolve, settings, ensure=images.find_or_pull)))
    return 0


def _backend(paths: Paths, settings: Settings) -> Backend:
    from shed.backends.factory import make_backend  # noqa: PLC0415  as above

    return make_backend(paths, settings)


def _pull_images(options: argparse.Namespace) -> int:
    from shed.progress import Progress  # noqa: PLC0415
    from shed.sheds.pins import open_images  # noqa: PLC0415
    from shed.sizes import format_size  # noqa: PLC0415  as above
    from shed.terminal.output import emit  # noqa: PLC0415
    from shed.terminal.progress import shown  # noqa: PLC0415

    settings = load_settings(options.config)
    paths = Paths()
    with shown(json=options.json) as sink:
        pulled = open_images(paths, settings).pull_configured(lambda: Progress(sink), variant=options.variant)
        if pulled and settings.warm_start:
            _warm_quietly(paths, settings, sink)
    if options.json:
        emit([{"name": image.name, "reference": image.reference, "digest": image.result.digest} for image in pulled])
        return 0
    for image in pulled:
        amount = format_size(image.result.fetched_bytes)
        print(f"pulled {image.reference}{f' as {image.name}' if image.name else ''}: {amount}")  # noqa: T201
    if not pulled:
        print("All images already cached.")  # noqa: T201
    return 0


def _warm_quietly(paths: Paths, settings: Settings, sink: Callable[[Event], None]) -> None:
    """Make what the first shed will be restored from; without it, that one is booted."""
    from shed.progress import WarningEvent  # noqa: PLC0415  as above
    from shed.server.warm import warm  # noqa: PLC0415

    try:
        warm(paths, settings, _backend(paths, settings), [], sink=sink)
    except ShedError as error:
        sink(WarningEvent(f"no template made: {error.message}"))


def _warm(options: argparse.Namespace) -> int:
    from shed.server.warm import parse_shape, warm  # noqa: PLC0415  as above
    from shed.terminal.output import emit  # noqa: PLC0415
    from shed.terminal.progress import shown  # noqa: PLC0415

    settings, paths = load_settings(options.config), Paths()
    shapes = [parse_shape(text) for text in options.shape]
    with shown(json=options.json) as sink:
        names = warm(paths, settings, _backend(paths, settings), shapes, sink=sink)
    if options.json:
        emit([{"name": name} for name in names])
    else:
        print("".join(f"{name}\n" for name in names), end="")  # noqa: T201
    return 0


def _install(options: argparse.Namespace) -> int:
    from shed.server.service.install import install  # noqa: PLC0415  as above
    from shed.server.service.systemd import Scope  # noqa: PLC0415

    scope = Scope.USER if options.user else Scope.mine()
    for sentence in install(scope, config=options.config, run_as=options.run_as):
        print(sentence)  # noqa: T201
    return 0


def _uninstall(options: argparse.Namespace) -> int:
    from shed.server.service.install import uninstall  # noqa: PLC0415  as above
    from shed.server.service.systemd import Scope  # noqa: PLC0415

    for sentence in uninstall(Scope.USER if options.user else Scope.mine()):
        print(sentence)  # noqa: T201
    return 0


def _config_validate(options: argparse.Namespace) -> int:
    path = options.config or find_settings()
    load_settings(path)
    print(f"{path} is valid" if path else "there is no configuration file: all is at its default")  # noqa: T201
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from shed.checks import Status  # noqa: PLC0415
    from shed.server.doctor.examine import CHECKS, as_json, as_text, examine  # noqa: PLC0415  as above
    from shed.server.doctor.host import Host  # noqa: PLC0415

    checks = CHECKS
    if options.security:
        from shed.server.doctor.security import CHECKS as checks  # noqa: PLC0415, N811

    results = list(examine(Host(Paths(), options.config), checks))
    width = os.get_terminal_size(1).columns if os.isatty(1) else None
    sys.stdout.write(as_json(results) if options.json else as_text(results, width))
    return int(any(result.status is Status.FAIL for result in results))


def _version(options: argparse.Namespace) -> int:
    print(f"shed-server {VERSION}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
