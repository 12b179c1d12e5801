"""`shed create | list | start | stop | delete | logs`."""

from __future__ import annotations

import sys

from shed.cli import parsing
from shed.cli.connection import client, client_of, create_timeout, known_on, local_dir, seen, where
from shed.cli.options import Options
from shed.cli.output import confirm, done, shown, watched
from shed.cli.parsing import Parser
from shed.client.models import Shed
from shed.errors import UsageError
from shed.sizes import format_size
from shed.terminal.output import age, emit, note, passing_on, say, seconds, table, timings

_COLD = "boot the VM, even where it could be restored"
_FORCE = "start it even when the host is short of memory"


def create(words: list[str], options: Options) -> int:
    """Create a shed and start it."""
    parser = Parser(
        "create",
        "Create a shed from an image and start it.",
        examples=["shed create dev", "shed create dev --image base --cpus 4 --memory 4G --local-dir ."],
    )
    parser.add_argument("name", metavar="NAME", help="lower-case letters, digits and '-'; at most 63")
    parser.add_argument("-i", "--image", metavar="IMAGE", help="name or digest of an image (default: the server's)")
    parser.add_argument("--cpus", metavar="N", type=parsing.count, help="virtual processors")
    parser.add_argument(
        "--memory", metavar="SIZE", type=parsing.memory, help="memory: 4G, 512M; a bare number is megabytes"
    )
    parser.add_argument(
        "--upper-size", metavar="SIZE", type=parsing.size, help="room for what is written in the shed: 1G to 100G"
    )
    parser.add_argument(
        "--local-dir",
        metavar="DIR[:MODE]",
        help="folder of this machine to mount at /workspace; MODE: rw (default), ro, or git-rw, which opens git's "
        "settings and hooks too",
    )
    parser.add_argument(
        "--timeout", metavar="TIME", type=parsing.duration, help="give up after this long (default: 10m)"
    )
    parser.add_argument("--cold", action="store_true", help=_COLD)
    parser.add_argument("--force", action="store_true", help=_FORCE)
    parser.add_argument(
        "--trust-kernel", action="store_true", help="let the kernel and the initrd that the image brings boot here"
    )
    args = parser.parse(words, options)
    server = client(options)
    folder, mode = (None, None) if args.local_dir is None else local_dir(args.local_dir, server)
    with watched(options, left="the server goes on, but a pull ends; see: shed list") as sink:
        shed = server.create(
            args.name,
            image=args.image,
            cpus=args.cpus,
            memory_mb=args.memory,
            upper_size_bytes=args.upper_size,
            local_dir=folder,
            local_dir_mode=mode,
            timeout=args.timeout or create_timeout(options),
            cold=args.cold,
            force=args.force,
            trust_kernel=args.trust_kernel,
            on_event=sink,
        )
    seen(server, options, {shed.name: shed.status})
    _finished(options, "create", "created", shed)
    return 0


def start(words: list[str], options: Options) -> int:
    """Start a stopped shed."""
    parser = Parser("start", "Start a stopped shed.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--cold", action="store_true", help=_COLD)
    parser.add_argument("--force", action="store_true", help=_FORCE)
    args = parser.parse(words, options)
    server = client_of(args.name, options)
    with watched(options) as sink:
        shed = server.start(args.name, cold=args.cold, force=args.force, on_event=sink)
    seen(server, options, {args.name: shed.status})
    _finished(options, "start", "started", shed)
    return 0


def stop(words: list[str], options: Options) -> int:
    """Stop a running shed."""
    name = _name_alone("stop", "Stop a running shed.  What was written in it stays.", words, options)
    server = client_of(name, options)
    with watched(options) as sink:
        shed = server.stop(name, on_event=sink)
    seen(server, options, {name: shed.status})
    _finished(options, "stop", "stopped", shed)
    return 0


def delete(words: list[str], options: Options) -> int:
    """Delete a shed and its files."""
    parser = Parser(
        "delete", "Delete a shed and everything that was written in it.  A folder given with --local-dir stays."
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    args = parser.parse(words, options)
    server = client_of(args.name, options)  # one that has said that it has it, or that was named
    if not confirm(f"Delete shed {args.name!r}{where(server)} and everything in it?", options, force=args.force):
        note("Cancelled.")
        return 0
    with watched(options) as sink:
        server.delete(args.name, force=True, on_event=sink)  # whoever was asked has said so
    seen(server, options, {}, gone=[args.name])
    done(options, "delete", args.name, f"deleted {args.name}{where(server)}")
    return 0


def list_sheds(words: list[str], options: Options) -> int:
    """List sheds."""
    parser = Parser("list", "List the sheds of the server.  -v adds process, size and workspace.")
    parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    parser.add_argument(
        "-a",
        "--all",
        action="store_true",
        help="of all servers, which are asked at once; those that are down are named",
    )
    args = parser.parse(words, options)
    if args.all:
        from shed.cli.everywhere import list_all  # noqa: PLC0415  for those who have several servers

        return list_all(options, quiet=args.quiet)
    server = client(options)
    with shown(options) as sink:
        sheds = sorted(server.sheds(on_event=sink), key=lambda shed: shed.name)
    seen(server, options, {shed.name: shed.status for shed in sheds}, gone=known_on(server, options))
    if options.json:
        emit([shed.wire for shed in sheds])
    elif args.quiet:
        say("".join(f"{shed.name}\n" for shed in sheds), end="")
    elif sheds or not sys.stdout.isatty():
        say(table(headers(options), [row(shed, options) for shed in sheds]), end="")
    else:
        note("no sheds yet; make one: shed create NAME")
    for shed in sheds:
        if shed.detail and not options.json:
            note(f"{shed.name}: {shed.detail}")
    return 0


def logs(words: list[str], options: Options) -> int:
    """Show what a shed's console said, and says."""
    parser = Parser(
        "logs",
        "Show what the console of a shed said since its last start.",
        examples=["shed logs dev", "shed logs dev -f -n 20"],
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with what it says, also over restarts, until it is deleted"
    )
    parser.add_argument("-n", "--tail", metavar="N", type=parsing.number, help="begin with the last N lines")
    args = parser.parse(words, options)
    if args.follow and options.json:
        raise UsageError("what is followed has no machine output", hint="leave out --json, or --follow")
    if args.follow:
        sys.stdout.flush()
        show = passing_on(1)
        for data in client_of(args.name, options).follow_logs(args.name, tail=args.tail, output=1):
            show(data)
        return 0
    text = client_of(args.name, options).logs(args.name, tail=args.tail)
    if options.json:
        emit({"name": args.name, "console": text})
    else:
        sys.stdout.flush()
        passing_on(1)(text.encode(errors="surrogateescape"))
    return 0


def _name_alone(command: str, description: str, words: list[str], options: Options) -> str:
    parser = Parser(command, description)
    parser.add_argument("name", metavar="NAME")
    name: str = parser.parse(words, options).name
    return name


def _finished(options: Options, action: str, verb: str, shed: Shed) -> None:
    total = sum(shed.timings.values())
    sentence = f"{verb} {shed.name}{f' in {seconds(total)}' if total else ''}"
    done(options, action, shed.name, sentence, shed=shed.wire)
    if options.verbose and not options.json:
        note(((f"  {shed.boot} start\n" if shed.boot else "") + timings(shed.timings)).rstrip("\n"))


def _workspace(shed: Shed) -> str:
    return (shed.local_dir or "-") + (f":{shed.local_dir_mode}" if shed.local_dir_mode not in {"", "rw"} else "")


def headers(options: Options) -> list[str]:
    """Return the heads of the columns in which sheds are listed."""
    return [
        "NAME",
        "STATUS",
        "IMAGE",
        "CPUS",
        "MEMORY",
        "CREATED",
        *(["PID", "UPPER", "WORKSPACE", "DIGEST"] if options.verbose else []),
    ]


def row(shed: Shed, options: Options) -> list[str]:
    """Return what stands under `headers` for one shed."""
    cells = [
        shed.name,
        shed.status,
        shed.image or "-",
        str(shed.cpus or "-"),
        format_size(shed.memory_mb << 20) if shed.memory_mb else "-",
        age(shed.created_at),
        str(shed.pid or "-"),
        format_size(shed.upper_size_bytes) if shed.upper_size_bytes else "-",
        _workspace(shed),
        shed.image_digest if options.verbose > 1 else shed.image_digest[:19] or "-",
    ]
    return cells[: len(headers(options))]
