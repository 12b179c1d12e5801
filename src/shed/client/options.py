"""What a shed can be asked to be: the members of `shed.api.making.CreateShed` but its name, for type checkers.

It takes long to import, so only they do.
"""

from __future__ import annotations

import os
from typing import TypedDict


class _Common(TypedDict, total=False):
    """What a new shed can have, and one that is there can be given."""

    cpus: int | None
    memory_mb: int | None
    """Memory in MiB."""
    upper_size_bytes: int | None
    """Size of its writable layer."""
    ttl: float | None
    """Seconds after which the server deletes it, also when this program is gone; 0, of one that is there: never."""
    ttl_action: str | None
    """What the server does then in place of that: ``stop`` or ``suspend`` it."""
    idle_suspend: float | None
    """Seconds after which the server suspends it when nobody has used it and it was not busy; 0: never."""
    restart: str | None
    """``always``: it starts again when its VM has ended or the host was down."""
    labels: dict[str, str] | None
    """Short texts by name, kept with the shed and shown with it."""
    env: dict[str, str] | None
    """Environment variables of all its commands."""
    ssh_agent: list[str] | None
    """Where it may use an SSH agent that is forwarded: ``[USER@]HOST[:PORT]``, ``*``, ``@git-signing``."""


class ShedChanges(_Common, total=False):
    """What can be changed of a shed: the members of `shed.api.making.UpdateShed`.  What is absent, or None, stays."""

    no_env: list[str] | None
    """Names of environment variables that it is to have no more."""
    no_labels: list[str] | None
    """Names of labels that it is to have no more."""


class ShedOptions(_Common, total=False):
    """All that can be asked of a new one.  What is absent, or None, is the server's to choose."""

    image: str | None
    """Name in the server's store, alias, digest or reference."""
    from_snapshot: str | None
    """The snapshot that it begins with, on the image of that; it goes on from its memory, if it has one."""
    prebuild: str | None
    """The prebuild that it goes on from, with the settings of that."""
    disk_only: bool
    """Boot the disk of that snapshot or prebuild, though it has memory."""
    local_dir: str | os.PathLike[str] | None
    """A folder of the server's machine, mounted at ``/workspace``."""
    local_dir_mode: str | None
    """``rw``: it may be written; ``git-rw``: also git's settings and hooks; ``ro``: it may only be read."""
    mounts: list[str] | None
    """Further folders of the server's machine, ``SRC:DST[:MODE]``."""
    repo: str | None
    """URL of a repository that it clones into ``/workspace``, and behind ``#`` a branch, a tag or a commit."""
    dotfiles: str | None
    """URL of a repository that it clones into the ``~/.dotfiles`` of its user, and installs from there."""
    timezone: str | None
    """Its time zone, as ``Europe/Berlin``; empty: as its image has it.  By default it is the server's."""
    no_provision: bool
    """Run no hooks of the project in ``/workspace``, now or later."""
    depth: int | None
    """Commits of the repository's history, by default 1; 0: all."""
    egress: list[str] | None
    """Names of the profiles that rule what it reaches."""
    ports: list[str] | None
    """Ports of the server's machine that lead into it: ``[ADDRESS:][PORT:]SHEDPORT``."""
    host_ports: list[str] | None
    """Ports of the server's machine that it reaches: ``PORT[:SHEDPORT]``."""
    secrets: list[str] | None
    """Names of the secrets that it may use; that needs the right to administer."""
    network: str | None
    """``nic``: no rule is asked about what it reaches."""
    timeout: float | None
    """Seconds from the VM's start to ready, after which all is undone."""
    cold: bool
    """Boot its VM, whatever it could be restored from."""
    force: bool
    """Start it on a host that is short of memory, too."""
    trust_kernel: bool
    """Let what the image boots with boot there from then on; that needs the right to administer."""
