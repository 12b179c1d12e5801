"""``/api/system``: what this server's data takes up, and freeing some of it."""

from __future__ import annotations

from typing import Any

from shed.api.access import Right
from shed.errors import UsageError
from shed.progress import Progress
from shed.server.app import Route, Server
from shed.server.http import Reply, Request, json_answer
from shed.threads import in_long_thread


async def usage(server: Server, request: Request) -> Reply:
    """Say what is taken up, by kind."""
    from shed.sheds.usage import usage as look  # noqa: PLC0415  a server starts faster without

    return json_answer(await in_long_thread(lambda: look(server.paths, server.images.store)))


async def prune(server: Server, request: Request) -> Reply:
    """Free space in the scopes that are true in the body, the usual ones when none is."""
    from shed.sheds.cleaning import DEFAULT_SCOPES, DEFAULT_UNTIL, SCOPES, Cleaner  # noqa: PLC0415  a server starts faster without
    from shed.sheds.consoles import DEFAULT_TAIL  # noqa: PLC0415

    body = {key: value for key, value in request.json_object().items() if value is not None}
    until = body.pop("until_seconds", DEFAULT_UNTIL)
    if not isinstance(until, int | float) or isinstance(until, bool) or not until >= 0:
        raise UsageError("until_seconds must be a number, 0 at least", hint=f"it is {until!r}")
    log_tail = body.pop("log_tail_bytes", DEFAULT_TAIL)
    if not isinstance(log_tail, int) or isinstance(log_tail, bool) or log_tail < 0:
        raise UsageError("log_tail_bytes must be a whole number, 0 at least", hint=f"it is {log_tail!r}")
    for key, value in body.items():
        if key not in (*SCOPES, "dry_run"):
            known = ", ".join((*SCOPES, "dry_run", "until_seconds", "log_tail_bytes"))
            raise UsageError(f"unknown member {key!r}", hint=f"known are {known}")
        if not isinstance(value, bool):
            raise UsageError(f"{key} must be true or false", hint=f"it is {value!r}")
    dry_run = body.pop("dry_run", False)
    scopes = frozenset(key for key, value in body.items() if value) or DEFAULT_SCOPES
    cleaner = Cleaner(server.paths, server.manager, server.images)

    async def work(progress: Progress) -> dict[str, Any]:
        return await cleaner.clean(scopes, until=float(until), log_tail=log_tail, dry_run=dry_run, progress=progress)

    return await server.workers.run(request, work)


ROUTES = (Route("GET", "/api/system/df", Right.READ, usage), Route("POST", "/api/system/prune", Right.ADMIN, prune))
