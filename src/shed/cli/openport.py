"""`shed open`: a port of a shed in the browser of this machine."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import SHED, argument, flag
from shed.cli.command import command
from shed.terminal.output import emit, note, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options
    from shed.client.sync.api import Api

LOOPBACK = "127.0.0.1"
"""By which a published port is reached here whose address is of `ALL`."""
ALL = frozenset({"localhost", "0.0.0.0", "::"})  # noqa: S104  nothing is bound here: they lead to the loopback, too


@command(
    "open",
    SHED,
    argument("PORT", "port of the shed", convert=values.port),
    flag("--https", "it speaks TLS"),
    flag("--no-browser", "print the URL alone"),
    examples=["shed open dev 3000", "BROWSER=firefox shed open dev 8443 --https"],
)
def open_port(args: Any, options: Options) -> int:
    """Open a port of a shed in the browser: $BROWSER, or what the desktop has.

    Where the port is published on this machine, or a tunnel in the background leads to it, that is used.  Otherwise a
    free port of this machine's loopback is forwarded to it until ctrl-C.
    """
    from shed.cli.tunnels import run, running_shed
    from shed.client.forward import Rule

    server = running_shed(args.name, options)
    found = server.shed_ports(args.name)
    _tell_listening(args, found)
    scheme = "https" if args.https else "http"

    def ready(place: str) -> None:
        url = f"{scheme}://{place}/"
        if options.json:
            emit({"url": url}, line=True)
        else:
            say(url, flush=True)
        if not args.no_browser:
            _browse(url)

    place = _published(server, args.port, found) or _tunnel(server, args.name, args.port)
    if place is not None:
        ready(place)
        return 0
    run(
        server.address,
        args.name,
        [Rule(0, args.port)],
        ready=lambda forwards: ready(f"{LOOPBACK}:{forwards[0]['port']}"),
        say=note,
    )
    return 0


def _tell_listening(args: Any, found: dict[str, Any]) -> None:
    """Say so when the shed says that nothing listens at the port."""
    listening = found.get("listening")
    if listening is not None and all(one.get("port") != args.port for one in listening):
        note(f"nothing listens at port {args.port} of {args.name} yet; see: shed ports {args.name}")


def _published(server: Api, port: int, found: dict[str, Any]) -> str | None:
    """Return where the port is published, if that can be reached from here: HOST:PORT."""
    if not server.address.local:
        return None
    for one in found.get("published") or ():
        if one.get("shed_port") == port and one.get("open"):
            address = LOOPBACK if one.get("address") in ALL else str(one.get("address"))
            return f"[{address}]:{one['port']}" if ":" in address else f"{address}:{one['port']}"
    return None


def _tunnel(server: Api, name: str, port: int) -> str | None:
    """Return where a tunnel in the background leads to the port: HOST:PORT."""
    from shed.cli.tunnels import local_end
    from shed.client.tunnels import Tunnels

    mine = Tunnels.of(name, server.address)
    if mine.pid() is None:
        return None
    return next((local_end(one) for one in mine.recorded().get("forwards", []) if one.get("remote") == port), None)


def _browse(url: str) -> None:
    """Start the browser; what is forwarded meanwhile goes on."""
    import threading
    import webbrowser

    def start() -> None:
        if not webbrowser.open(url):
            note("no browser could be started; set $BROWSER, or go there by hand")

    threading.Thread(target=start).start()
