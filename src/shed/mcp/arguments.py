"""What each tool takes.  The docstring of a struct is what a model is told of its tool, so all of it is short."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from shed.api.base import Body, says
from shed.api.egress import ProfileName
from shed.api.ports import PortNumber
from shed.api.sheds import PrebuildName, ShedName, SnapshotName
from shed.api.snapshots import MOST_COMMENT
from shed.names import MAX_CPUS, MAX_MEMORY_MB, MAX_NAME, MIN_MEMORY_MB

MOST_PATH = 4096
MOST_TEXT = 2 << 20
MOST_COMMAND = 100_000
MOST_SECONDS = 3600.0
Name = Annotated[str, Meta(max_length=MAX_NAME)]
Which = Annotated[Name | None, says("Which shed; can be left out while there is only one.")]
Text = Annotated[str, Meta(max_length=MOST_TEXT)]
FilePath = Annotated[
    str,
    Meta(min_length=1, max_length=MOST_PATH, pattern=r"^[^\x00]+$(?!\n)"),
    says("Path in the shed, absolute or below the working folder."),
]
LocalPath = Annotated[
    str,
    Meta(min_length=1, max_length=MOST_PATH, pattern=r"^[^\x00]+$(?!\n)"),
    says("Path below the user's folder, without links; for a download one new name."),
]
Command = Annotated[str, Meta(min_length=1, max_length=MOST_COMMAND, pattern=r"^[^\x00]+$(?!\n)")]
Base = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00]+$(?!\n)")]
Number = Annotated[int, Meta(ge=1, le=10**9)]


class Create(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Make a shed: a Linux virtual machine of your own, mostly with sudo. It is deleted when you are done."""

    name: Annotated[ShedName | None, says("How its name is to begin; the answer has the whole name.")] = None
    image: Annotated[Annotated[str, Meta(max_length=512)] | None, says("What it is made of.")] = None
    prebuild: Annotated[PrebuildName | None, says("A shed made ready before, to go on from; not with image.")] = None
    repo: Annotated[
        Annotated[str, Meta(max_length=2048)] | None,
        says("URL of a git repository to clone into /workspace; behind # a branch, tag or commit."),
    ] = None
    profile: Annotated[ProfileName | None, says("The rules for what it reaches of the network.")] = None
    cpus: Annotated[Annotated[int, Meta(ge=1, le=MAX_CPUS)] | None, says("Processors.")] = None
    memory_mb: Annotated[Annotated[int, Meta(ge=MIN_MEMORY_MB, le=MAX_MEMORY_MB)] | None, says("Memory in MiB.")] = None


class List(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """List your sheds, with their checkpoints, forwarded ports and commands in the background."""


class Exec(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Run a shell command in a shed and return its output. The working folder is kept between calls, not variables."""

    command: Annotated[Command, says("A command line for bash, or sh where there is no bash. It has no input.")]
    shed: Which = None
    folder: Annotated[
        Annotated[str, Meta(max_length=MOST_PATH, pattern=r"^[^\x00]*$(?!\n)")],
        says("Run it here, and stay; absent: where the last command left off, at first /workspace."),
    ] = ""
    timeout: Annotated[float, Meta(gt=0, le=MOST_SECONDS), says("Seconds until its process group is killed.")] = 120.0
    background: Annotated[
        bool, says("Return at once with a number for the tool process, without a timeout: for servers, long builds.")
    ] = False


class Process(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Ask for a command in the background: its new output, and whether it still runs; or kill it."""

    number: Annotated[Number, says("The number that exec gave it.")]
    wait: Annotated[float, Meta(ge=0, le=600), says("Seconds to wait for its end.")] = 0.0
    kill: Annotated[bool, says("Kill its process group.")] = False


class Read(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Read lines of a text file in a shed, as they are."""

    path: FilePath
    first_line: Number = 1
    lines: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    shed: Which = None


class Write(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Write a whole text file in a shed, and make the folders that lead to it. To change a part of one, use edit."""

    path: FilePath
    content: Text
    shed: Which = None


class Edit(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Replace a text in a file of a shed by another one. The old text must be there exactly once."""

    path: FilePath
    old: Annotated[str, Meta(min_length=1, max_length=MOST_TEXT), says("Exactly as read shows it.")]
    new: Text
    all: Annotated[bool, says("Replace it wherever it is.")] = False
    shed: Which = None


class Find(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """List files below a folder of a shed, or lines in them that match text. Leaves out .git, node_modules, .venv."""

    path: FilePath = "."
    name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00]+$(?!\n)")],
        says("Pattern of the file's name, such as *.py."),
    ] = "*"
    text: Annotated[
        Annotated[str, Meta(max_length=1000, pattern=r"^[^\x00]*$(?!\n)")], says("Extended regular expression.")
    ] = ""
    shed: Which = None


class Copy(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Copy a file or folder from the user's folder into a shed, or back into from-sheds there; no hidden files come."""

    direction: Literal["upload", "download"]
    local: LocalPath
    path: FilePath
    shed: Which = None


class Diff(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Show what has changed in the git repository of a shed's working folder, committed or not, as a patch."""

    base: Annotated[Base | None, says("From this commit on; absent: from what was cloned.")] = None
    folder: Annotated[Annotated[str, Meta(max_length=MOST_PATH)], says("Another repository.")] = ""
    shed: Which = None


class Checkpoint(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Keep all that a shed is now, files and running programs, to be able to roll it back."""

    note: Annotated[Annotated[str, Meta(max_length=MOST_COMMENT)], says("What it is good for.")] = ""
    shed: Which = None


class Rollback(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Have a shed go back to a checkpoint: what was done since is gone, commands that run end."""

    checkpoint: Annotated[SnapshotName | None, says("Absent: the last one.")] = None
    shed: Which = None


class Fork(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Make copies of a running shed, programs included, to try several things beside each other."""

    count: Annotated[int, Meta(ge=1, le=16)] = 1
    shed: Which = None


class Ports(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Show at which ports programs in a shed listen; with a port, return a URL of it for the user's machine."""

    port: Annotated[PortNumber | None, says("A port of the shed.")] = None
    shed: Which = None


class Egress(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Show what a shed tried to reach on the network and was denied, and by which rules. Only the user changes them."""

    denied: Annotated[bool, says("False: also what was allowed, as far as that is logged.")] = True
    shed: Which = None


class Delete(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Delete a shed that you made, with all that is in it."""

    shed: Name
