"""`shed workspace check`: what a shed has left in its folder."""

from __future__ import annotations

from shed.cli.app import Command, dispatch
from shed.cli.connection import client_of
from shed.cli.options import Options
from shed.cli.parsing import Parser
from shed.terminal.output import emit, note, say

COMMANDS = {"check": Command("shed.cli.workspace:check", "tell what in a shed's folder may run on its host")}


def main(words: list[str], options: Options) -> int:
    """Run a command about workspaces."""
    return dispatch(
        COMMANDS,
        words,
        options,
        prefix="workspace ",
        about="Folders that sheds share with their host (create --local-dir).",
    )


def check(words: list[str], options: Options) -> int:
    """Tell what in a shed's folder may run on its host."""
    parser = Parser(
        "workspace check",
        "Tell what in the folder of a shed may run on its host by itself, when git, an editor or a shell comes by.  "
        "Scripts and programs "
        "that you start are not listed.  The exit code is 1 when something has changed since the shed was made.",
        examples=["shed workspace check dev"],
    )
    parser.add_argument("name", metavar="NAME", help="a shed, running or not")
    name = parser.parse(words, options).name
    found = client_of(name, options).check_workspace(name)
    if options.json:
        emit(found)
    findings = found["findings"]
    new = [one for one in findings if one["changed"]]
    if options.json:
        return int(bool(new))
    for one in findings:
        say(f"{'changed  ' if one['changed'] else 'as it was'}  {one['path']}: {one['why']}")
    note(f"{found['local_dir']}: {len(findings)} of what may run by itself, {len(new)} changed since {name} was made")
    return int(bool(new))
