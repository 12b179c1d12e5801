"""`shed version`, when it is asked for more than the plain line that `shed.cli.main` prints."""

from __future__ import annotations

import platform

from shed.cli.connection import client
from shed.cli.options import Options
from shed.cli.parsing import Parser
from shed.errors import ShedError
from shed.terminal.output import emit, say
from shed.version import VERSION


def version(words: list[str], options: Options) -> int:
    """Show the version; -v adds Python's and the server's."""
    Parser("version", "Show the version.  -v adds Python's and the server's.").parse(words, options)
    facts = {"version": VERSION}
    if options.verbose:
        facts["python"] = platform.python_version()
        try:
            facts["server"] = str(client(options).info(start=False).get("version"))
        except ShedError as error:
            facts["server"] = f"unknown: {error}"
    if options.json:
        emit(facts)
        return 0
    say(f"shed {facts.pop('version')}")
    for name, value in facts.items():
        say(f"  {name:<6}  {value}")
    return 0
