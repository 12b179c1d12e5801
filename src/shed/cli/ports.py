"""`shed ports`: the ports of the host that lead into a shed, and those that it reaches."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import SHED, option
from shed.cli.command import command
from shed.cli.connection import client_of
from shed.cli.openport import ALL, LOOPBACK
from shed.cli.output import waiting
from shed.terminal.output import emit, note, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options


_TLS = (443, 8443)


@command(
    "ports",
    SHED,
    option(
        "-p, --publish",
        "[ADDRESS:][PORT:]SHEDPORT",
        "publish a port of the shed, too; without PORT at a free one; can be repeated",
        repeat=True,
    ),
    option("--unpublish", "PORT", "publish it no more; can be repeated", repeat=True, convert=values.port),
    option(
        "--host-port",
        "PORT[:SHEDPORT]",
        "let the shed reach a port of the server's machine, too, as host.shed.internal; can be repeated",
        repeat=True,
    ),
    option("--no-host-port", "PORT", "let it reach that no more; can be repeated", repeat=True, convert=values.port),
    examples=["shed ports dev", "shed ports dev -p 8080:80 --unpublish 3000", "shed ports dev --host-port 5432"],
)
def ports(args: Any, options: Options) -> int:
    """Show the ports of the server's machine that lead into a shed, and those that it reaches; change them at once.

    Those at which something in the shed listens are shown, too, published or not.

    Without an address, a published port is on loopback: other users of that machine can connect to it, others cannot.
    """
    with waiting(options, f"asking the server about {args.name}"):
        server = client_of(args.name, options)
        if args.publish or args.unpublish or args.host_port or args.no_host_port:
            found = server.change_ports(
                args.name,
                publish=args.publish,
                unpublish=args.unpublish,
                host_ports=args.host_port,
                no_host_ports=args.no_host_port,
            )
        else:
            found = server.shed_ports(args.name)
    if options.json:
        emit(found)
        return 0
    listening = {one["port"]: one["addresses"] for one in found.get("listening") or ()}
    known = found.get("listening") is not None
    rows = []
    for one in found["published"]:
        idle = known and one["shed_port"] not in listening
        rows.append(
            [
                f"{_host(one['address'])}:{one['port']}",
                f"{args.name}:{one['shed_port']}",
                _state(one) + ("; nothing listens there" if idle else ""),
                _url(one) if one["open"] and server.address.local and not idle else "-",
            ]
        )
    rows += [
        [f"host.shed.internal:{one['shed_port']}", f"localhost:{one['port']}", "for the shed", "-"]
        for one in found["host_ports"]
    ]
    published = {one["shed_port"] for one in found["published"]}
    rows += [
        [
            "-",
            f"{args.name}:{port}",
            f"listens on {', '.join(addresses)}; not published",
            f"shed open {args.name} {port}",
        ]
        for port, addresses in listening.items()
        if port not in published
    ]
    if rows:
        say(table(["PORT", "LEADS TO", "STATE", "URL"], rows), end="")
    if found.get("problem"):
        note(f"it is not known what listens in {args.name}: {found['problem']}")
    elif not rows:
        note(f"{args.name} has no ports; publish one: shed ports {args.name} -p 8080:80")
    return 0


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _url(one: dict[str, Any]) -> str:
    """Return where a browser of this machine finds a published port, if it speaks HTTP."""
    scheme = "https" if one["shed_port"] in _TLS else "http"
    return f"{scheme}://{_host(LOOPBACK if one['address'] in ALL else one['address'])}:{one['port']}/"


def _state(one: dict[str, Any]) -> str:
    return str(one["problem"]) or ("open" if one["open"] else "the shed does not run")
