"""The table of all commands of `shed`.  A command's module is imported when the command is called."""

from __future__ import annotations

import sys

from shed.cli.command import Entry, Group, command
from shed.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

SHED = Group(
    "",
    "Persistent microVM development environments.",
    {
        "setup": Entry("shed.cli.setup:setup", "make ready what the first shed needs"),
        "create": Entry("shed.cli.sheds:create", "create a shed and start it"),
        "list": Entry("shed.cli.sheds:list_sheds", "list sheds"),
        "ls": Entry("shed.cli.sheds:list_sheds", "", "list"),
        "inspect": Entry("shed.cli.sheds:inspect", "show all about a shed"),
        "stats": Entry("shed.cli.stats:stats", "show what running sheds use of their host"),
        "start": Entry("shed.cli.lifecycle:start", "start stopped sheds"),
        "stop": Entry("shed.cli.lifecycle:stop", "stop running sheds; their files stay"),
        "suspend": Entry("shed.cli.lifecycle:suspend", "put running sheds to sleep, to go on later where they were"),
        "resume": Entry("shed.cli.lifecycle:resume", "have suspended sheds go on where they were"),
        "keep-awake": Entry("shed.cli.awake:keep_awake", "have a shed not be suspended for being idle, for some time"),
        "restart": Entry("shed.cli.lifecycle:restart", "stop sheds and start them again"),
        "provision": Entry("shed.cli.provision:provision", "run the hooks of the project in a shed"),
        "update": Entry("shed.cli.lifecycle:update", "change the processors, memory or disk of a shed"),
        "rename": Entry("shed.cli.lifecycle:rename", "give a stopped shed another name"),
        "fork": Entry("shed.cli.snapshot:fork", "make sheds that go on from what a running one is now"),
        "rollback": Entry("shed.cli.snapshot:rollback", "have a shed go back to a snapshot"),
        "reset": Entry("shed.cli.snapshot:reset", "have a stopped shed begin anew, with its image alone"),
        "delete": Entry("shed.cli.lifecycle:delete", "delete sheds and their files"),
        "rm": Entry("shed.cli.lifecycle:delete", "", "delete"),
        "run": Entry("shed.cli.run:run", "run a command in a shed of its own"),
        "exec": Entry("shed.cli.exec:exec_command", "run a command in a shed"),
        "console": Entry("shed.cli.exec:console_command", "open a login shell in a shed"),
        "cp": Entry("shed.cli.copy:cp", "copy files and folders to and from sheds"),
        "code": Entry("shed.cli.code:code", "open a shed in an editor, by SSH"),
        "sync": Entry("shed.cli.sync:sync", "bring files of this machine into a shed, by rules"),
        "diff": Entry("shed.cli.patch:diff", "show what has changed in a repository of a shed"),
        "apply": Entry("shed.cli.patch:apply", "take what has changed in a repository of a shed into one here"),
        "attach": Entry("shed.cli.sessions:attach", "open a tmux session in a shed"),
        "sessions": Entry("shed.cli.sessions:sessions", "list the tmux sessions in sheds, or end one"),
        "ssh-config": Entry("shed.cli.ssh:ssh_config", "set up OpenSSH to reach sheds as hosts"),
        "ssh-key": Entry("shed.cli.ssh:ssh_keys", "list, add and remove the keys that may enter by SSH"),
        "logs": Entry("shed.cli.logs:logs", "show the console output of a shed"),
        "forward": Entry("shed.cli.tunnels:forward", "forward ports of this machine to a shed, until ctrl-C"),
        "tunnels": Entry("shed.cli.tunnels:tunnels", "forward ports to a shed, also in the background"),
        "ports": Entry("shed.cli.ports:ports", "show and change the ports that lead into a shed, or out to its host"),
        "open": Entry("shed.cli.openport:open_port", "open a port of a shed in the browser"),
        "mount": Entry("shed.cli.mount:mount", "give a shed folders of its host, and take them away"),
        "workspace": Entry("shed.cli.workspace:workspace", "check the folder that a shed shares with its host"),
        "mcp": Entry("shed.cli.mcp:mcp", "serve an agent by the Model Context Protocol"),
        "events": Entry("shed.cli.events:events", "show what happens on a server: sheds, and what they reach"),
        "egress": Entry("shed.cli.egress:egress", "rule and log what sheds may reach"),
        "secret": Entry("shed.cli.secret:secret", "keep keys and tokens that sheds use and never see"),
        "snapshot": Entry("shed.cli.snapshot:snapshot", "keep what sheds have written, for others to begin with"),
        "prebuild": Entry("shed.cli.prebuild:prebuild", "make sheds ready ahead, for others to go on from"),
        "image": Entry("shed.cli.image:image", "list, inspect, build, copy and remove images"),
        "system": Entry("shed.cli.system:system", "show what takes up space, and free some of it"),
        "server": Entry("shed.cli.server:servers", "start, stop and query the local server; add servers elsewhere"),
        "token": Entry("shed.cli.token:tokens", "create, list and revoke tokens for the server's TCP port"),
        "erofs": Entry("shed.cli.erofs:erofs", "check and read EROFS images"),
        "completion": Entry("shed.cli.completion:completion", "print the completion script for bash, zsh or fish"),
        "version": Entry("shed.cli.app:version", "show the version"),
        "--version": Entry("shed.cli.app:version", "", "version"),
    },
)


def run(words: list[str], options: Options) -> int:
    """Run the command that `words` hold; return its exit code."""
    for stream in (sys.stdout, sys.stderr):  # no name that the terminal's encoding lacks may end a command
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # it was closed
        sys.stdout = open("/dev/null", "w", encoding="utf-8")  # noqa: SIM115  lives as long as the process
    return SHED(words, options)


@command("version")
def version(args: Any, options: Options) -> int:
    """Show the version.  -v adds the versions of Python and of the server."""
    from shed.terminal.output import emit, say

    facts = {"version": VERSION}
    if options.verbose:
        import platform

        from shed.cli.connection import client
        from shed.errors import ShedError

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
