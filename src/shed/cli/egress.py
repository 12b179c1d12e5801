"""`shed egress show | set | off | log | profile`: what sheds may reach."""

from __future__ import annotations

from shed.cli import values
from shed.cli.arguments import SHED, argument
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client, client_of
from shed.cli.output import done, waiting
from shed.errors import UsageError
from shed.terminal.output import emit, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

egress = Group(
    "egress",
    "What sheds may reach: profiles of rules, and the log of what was refused.",
    {
        "show": Entry("shed.cli.egress:show", "show what a shed may reach"),
        "set": Entry("shed.cli.egress:set_profiles", "give a shed other profiles, at once"),
        "off": Entry("shed.cli.egress:off", "let nothing out of a shed any more"),
        "log": Entry("shed.cli.events:egress_log", "show what was decided about a shed's connections"),
        "learn": Entry("shed.cli.egress_learn:learn", "propose the profile that a command needs"),
        "profile": Entry("shed.cli.egress:profiles", "list, show, set and remove profiles"),
    },
)
profiles = Group(
    "egress profile",
    "Profiles of rules, which sheds are given by name.",
    {
        "list": Entry("shed.cli.egress:list_profiles", "list the profiles"),
        "ls": Entry("shed.cli.egress:list_profiles", "", "list"),
        "show": Entry("shed.cli.egress:show_profile", "show the rules of a profile"),
        "set": Entry("shed.cli.egress:set_profile", "make a profile from a file, or give one other rules"),
        "edit": Entry("shed.cli.egress_edit:edit_profile", "change the rules of a profile in your editor"),
        "rm": Entry("shed.cli.egress:remove_profile", "remove a profile that no shed has"),
    },
)


@command("egress show", SHED)
def show(args: Any, options: Options) -> int:
    """Show the profiles of a shed, the rules in the order in which they are asked, and its open connections."""
    found = client_of(args.name, options).shed_egress(args.name)
    if options.json:
        emit(found)
        return 0
    say(f"profiles:     {', '.join(found.get('profiles') or []) or 'none: it reaches nothing'}")
    say(f"connections:  {found.get('connections')}")
    if found.get("proxy"):
        say(f"proxy:        {found['proxy']}")
    if found.get("problem"):
        say(f"problem:      {found['problem']}")
    for rule in found.get("rules") or []:
        say(f"  {rule}")
    return 0


@command(
    "egress set",
    SHED,
    argument("PROFILE", "name of a profile; several hold together", count="+"),
    examples=["shed egress set dev offline", "shed egress set dev packages github"],
)
def set_profiles(args: Any, options: Options) -> int:
    """Give a shed other profiles.  Connections that are not allowed any more are cut."""
    return _change(args.name, [name for word in args.profile for name in values.names(word)], options)


@command("egress off", SHED)
def off(args: Any, options: Options) -> int:
    """Let nothing out of a shed any more, and cut its connections."""
    return _change(args.name, [], options)


def _change(name: str, wanted: list[str], options: Options) -> int:
    with waiting(options, f"changing what {name} may reach"):
        changed = client_of(name, options).set_shed_egress(name, wanted)
    cut = changed.get("cut")
    words = f"{name} has {', '.join(wanted) or 'no profile'}" + (f"; {cut} connections were cut" if cut else "")
    done(options, "egress", name, words, **{key: value for key, value in changed.items() if key != "name"})
    return 0


@command("egress profile list")
def list_profiles(args: Any, options: Options) -> int:
    """List the egress profiles.  A star marks those of a shed for which none are named."""
    found = client(options).egress_profiles()
    if options.json:
        emit(found)
        return 0
    default = found.get("default") or []
    rows = [
        [f"{one.get('name')}{' *' if one.get('name') in default else ''}", str(one.get("kind")), str(len(one["rules"]))]
        for one in found["profiles"]
    ]
    say(table(["PROFILE", "KIND", "RULES"], rows), end="")
    return 0


@command("egress profile show", argument("PROFILE", "name of the profile"))
def show_profile(args: Any, options: Options) -> int:
    """Show the rules of a profile, as a file for `shed egress profile set`."""
    found = [one for one in client(options).egress_profiles()["profiles"] if one.get("name") == args.profile]
    if not found:
        raise UsageError(f"there is no egress profile {args.profile!r}", hint="see: shed egress profile list")
    if options.json:
        emit(found[0])
    else:
        say(as_yaml(found[0]), end="")
    return 0


def as_yaml(profile: dict[str, Any]) -> str:
    """Return a profile as a file for `shed egress profile set`."""
    import json

    rules = [f"  - {json.dumps(rule)}" for rule in profile["rules"]]
    return "\n".join(["rules:" if rules else "rules: []", *rules, f"log: {profile.get('log')}", ""])


@command(
    "egress profile set",
    argument("PROFILE", "name of the profile: lower-case letters, digits and '-'"),
    argument(
        "FILE",
        "YAML with `rules`, a list of allow: or deny: with a name or network, and if need be ports, methods and paths",
    ),
    examples=["shed egress profile set work work.yaml"],
)
def set_profile(args: Any, options: Options) -> int:
    """Make a profile from a file, or give one other rules.  The sheds that have it obey at once."""
    document = read_profile(args.file)
    with waiting(options, f"changing {args.profile} and the sheds that have it"):
        changed = client(options).set_egress_profile(args.profile, document)
    done(options, "egress-profile", args.profile, f"set {args.profile}: {len(changed.get('rules') or [])} rules")
    return 0


@command("egress profile rm", argument("PROFILE", "name of the profile"))
def remove_profile(args: Any, options: Options) -> int:
    """Remove a profile that no shed has."""
    client(options).remove_egress_profile(args.profile)
    done(options, "egress-profile", args.profile, f"removed {args.profile}")
    return 0


def read_profile(path: str) -> dict[str, Any]:
    """Return the YAML object in a file.  Raises `UsageError`."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}", code="INVALID_EGRESS_PROFILE") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path} has no `rules`", code="INVALID_EGRESS_PROFILE")
    return document
