"""The members of requests to the server and of its answers: plain JSON, checked as far as programs rely on it.

`shed.api` describes all of it; it takes too long to import for the command line.
"""

from __future__ import annotations

import os

from shed.errors import UsageError
from shed.names import check_shed_name
from shed.progress import WarningEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from shed.client.options import ShedOptions
    from shed.progress import Event

CONNECT, LOG = "shed-tcp", "shed-log"
"""Protocols that a connection becomes."""
EVENTS = "text/event-stream"
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""Bytes that stand for themselves in a path or a query; RFC 3986, section 2.3."""
_SHED: dict[str, Any] = {
    **dict.fromkeys(("name", "status", "created_at", "image", "image_digest", "backend"), ""),
    **dict.fromkeys(("local_dir", "local_dir_mode", "detail", "boot", "expires_at", "suspended_by"), ""),
    **dict.fromkeys(("cpus", "memory_mb", "upper_size_bytes", "pid"), 0),
    "timings": {},
    "awake": [],
    "mounts": [],
}


def shed_target(name: str, *more: str) -> str:
    """Return the path of a shed, or of something below it.  Raises `UsageError` for what is no name."""
    return "/".join(["/api/sheds", check_shed_name(name), *more])


def delete_target(name: str, *, force: bool = False, unfinished: bool = False) -> str:
    """Return the target by which a shed is deleted; `unfinished`: only while it is being made."""
    return shed_target(name) + ("?unfinished=true" if unfinished else "?force=true" if force else "")


def logs_target(name: str, tail: int | None) -> str:
    """Return the target of the last `tail` lines of a shed's console log."""
    return shed_target(name, "logs") + ("" if tail is None else f"?tail={tail:d}")


def events_target(shed: str | None, kinds: list[str] | None, tail: int | None) -> str:
    """Return the target of events: of one shed, of some kinds, the last `tail`."""
    wanted = {"shed": shed and check_shed_name(shed), "kind": kinds and ",".join(kinds), "tail": tail}
    words = [f"{name}={quoted(str(value))}" for name, value in wanted.items() if value is not None and value != []]
    return "/api/events" + (f"?{'&'.join(words)}" if words else "")


def workspace_target(name: str, mount: str | None, after: str | None = None) -> str:
    """Return the target of a look at the folder that a shed has at `mount`, or else its workspace."""
    words = [f"{key}={quoted(value)}" for key, value in (("mount", mount), ("after", after)) if value is not None]
    return shed_target(name, "workspace") + (f"?{'&'.join(words)}" if words else "")


def mounts_of(folders: Iterable[str]) -> list[str]:
    """Return ``SRC:DST[:MODE]`` words with SRC as an absolute path."""
    return [os.path.abspath(source) + f":{rest}" for source, rest in map(split_mount, folders)]  # noqa: PTH100  as below


def split_mount(words: str) -> tuple[str, str]:
    """Return SRC, and the rest of ``SRC:DST[:MODE]``.  Raises `UsageError`."""
    source, _, rest = words.rpartition(":")
    if not rest.startswith("/"):
        source, _, target = source.rpartition(":")
        rest = f"{target}:{rest}"
    if not source or not rest.startswith("/"):
        raise UsageError(
            f"{words!r} is not SRC:DST or SRC:DST:MODE", code="INVALID_MOUNT", hint="for example ~/data:/data:ro"
        )
    return source, rest


def connect_target(name: str, port: int) -> str:
    """Return the path under which a port of a shed is reached, by an upgrade to the protocol `CONNECT`."""
    return shed_target(name, f"connect/{port:d}")


def image_query(image: str) -> str:
    """Return the query that names an image.  Raises `UsageError` for an empty name."""
    if not image:
        raise UsageError("the name of the image is empty", hint="is a variable in it not set?")
    return f"?image={quoted(image)}"


def quoted(text: str) -> str:
    """Return `text` as it stands in a path or a query."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in os.fsencode(text))


def given(**members: object) -> dict[str, object]:
    """Return the members of a request that are neither None nor False: the others are the server's to choose."""
    return {name: value for name, value in members.items() if value is not None and value is not False}


def new_shed(name: str, options: ShedOptions) -> dict[str, object]:
    """Return the members of a request for a shed `name`.  Raises `UsageError` for what is no name."""
    members = given(name=check_shed_name(name), **options)
    if (folder := options.get("local_dir")) is not None:
        members["local_dir"] = os.path.abspath(folder)  # noqa: PTH100  its links as they are written
    if (folders := options.get("mounts")) is not None:
        members["mounts"] = mounts_of(folders)
    return members


def in_query(**switches: bool) -> str:
    """Return the query that sets the `switches` which are true.

    A server of v0.5.2 reads them there, and does without a word what a body asks it not to do.  Later ones read both.
    """
    words = [f"{name}=true" for name, value in switches.items() if value]
    return f"?{'&'.join(words)}" if words else ""


def object_of(value: object) -> dict[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def items_of(answer: object, key: str) -> list[Any]:
    """Return the list that is the member `key` of an answer."""
    value = answer.get(key) if isinstance(answer, dict) else None
    return value if isinstance(value, list) else []


def objects_of(answer: object, key: str) -> list[dict[str, Any]]:
    """Return the JSON objects in the list that is the member `key` of an answer."""
    return [object_of(item) for item in items_of(answer, key)]


def complete_shed(shed: dict[str, Any]) -> dict[str, Any]:
    """Return all members of a shed that this version knows.

    One that is missing, or of the wrong type, is empty or 0.
    """
    return {
        name: value if type(value := shed.get(name)) is type(default) else default for name, default in _SHED.items()
    }


def tell_warnings(answer: object, on_event: Callable[[Event], object] | None) -> None:
    """Have `on_event` get the ``warnings`` of an answer."""
    if on_event is not None:
        for warning in items_of(answer, "warnings"):
            on_event(WarningEvent(str(warning)))
