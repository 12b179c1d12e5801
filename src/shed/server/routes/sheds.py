"""``/api/sheds``: sheds, their life, what runs in them and their ports; ``/api/sessions``: the tmux sessions of all."""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from shed.api import endpoints, life
from shed.api import sheds as api
from shed.api import stats as usage
from shed.api import workspace as folder
from shed.api.access import Right
from shed.api.base import NoBody, Nothing, WorkParams
from shed.api.making import CreateShed, UpdateShed
from shed.api.upgrades import CONNECT, EXEC, LOG
from shed.config.configured import is_configured
from shed.errors import BackendError, UsageError
from shed.names import MAX_NAME
from shed.progress import Progress
from shed.server.app import Server, route
from shed.server.call import Call, Work, answer
from shed.server.caller import Caller
from shed.server.http import Answer, Upgrade
from shed.sheds import mountspec, sessions
from shed.threads import in_long_thread, in_thread


async def index(server: Server, call: Call[api.ListParams, NoBody]) -> api.ShedList:
    """List all sheds; what cannot be read becomes a warning."""
    found, warnings = await asyncio.to_thread(server.manager.catalog.list)
    if (label := call.params.label) is not None:
        found = [shed for shed in found if _has_label(shed.get("labels", {}), label)]
    return api.ShedList(sheds=[answer(api.Shed, shed) for shed in found], warnings=warnings)


def _has_label(labels: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


async def show(server: Server, call: Call[api.ShedParams, NoBody]) -> api.Shed:
    """Show one shed."""
    return answer(api.Shed, server.manager.catalog.get(call.params.name))


async def stats(server: Server, call: Call[Nothing, NoBody]) -> usage.StatsList:
    """Show what running sheds use."""
    found = await asyncio.to_thread(lambda: list(server.manager.catalog.loads()))
    return usage.StatsList(sheds=[answer(usage.Stats, shed) for shed in found])


async def create(server: Server, call: Call[WorkParams, CreateShed]) -> Work[api.Shed]:
    """Make a shed."""
    call.action.shed = call.body.name[:MAX_NAME]
    wanted = await in_thread(server.manager.prebuilds.merged, call.body)
    await check_right(server, call.caller, wanted)
    if wanted.attached and not call.request.wants_events:
        raise UsageError("a shed ends with the connection that its client keeps", hint="accept text/event-stream")
    client = server.manager.attached.begin() if wanted.attached else None

    async def work(progress: Progress) -> api.Shed:
        async with server.manager.prebuilds.using(wanted.from_snapshot):
            made = await server.manager.create(wanted, progress, client=client)
        await _tell_of_hosts(wanted.ssh_agent, progress)
        return answer(api.Shed, made)

    return Work(work, None if client is None else partial(server.manager.attached.end, client))


async def check_right(server: Server, caller: Caller, wanted: CreateShed) -> None:
    """Raise `ForbiddenError` when `caller` may not make such a shed."""
    settings = server.settings
    if wanted.local_dir is not None or wanted.mounts:
        caller.require(Right.ADMIN, "a folder of the host")
    if wanted.trust_kernel:
        caller.require(Right.ADMIN, "the kernel of an image")
    if wanted.egress is not None and list(wanted.egress) not in ([], ["offline"], list(settings.egress_default)):
        caller.require(Right.ADMIN, "an egress profile of its own choice")
    if wanted.ports or wanted.host_ports:
        caller.require(Right.ADMIN, "a port of the host")
    if wanted.secrets:
        caller.require(Right.ADMIN, "a secret")
    if wanted.ssh_agent:
        caller.require(Right.ADMIN, "the use of an SSH agent")
    if wanted.network == "nic":
        caller.require(Right.ADMIN, "a network without rules")
    if wanted.force:
        caller.require(Right.ADMIN, "force")
    if wanted.image is not None and not is_configured(settings, wanted.image):
        caller.require(Right.ADMIN, "an image that is neither in the store nor in the configuration")
    if await in_thread(server.manager.setup.opens_more, wanted):  # it looks at folders, too, for those who may name any
        caller.require(Right.ADMIN, "a repository of a host that the shed's profiles do not allow")


async def start(server: Server, call: Call[api.ShedWorkParams, life.StartShed]) -> Work[api.Shed]:
    """Start a stopped shed."""
    name, wanted = call.params.name, call.body
    if wanted.force:
        call.caller.require(Right.ADMIN, "force")

    async def work(progress: Progress) -> api.Shed:
        started = await server.manager.start(
            name, progress, cold=wanted.cold, force=wanted.force, disk_only=wanted.disk_only
        )
        failed = await server.manager.setup.started(name, progress)
        return answer(api.Shed, {**started, "failed": failed})

    return Work(work)


async def provision(server: Server, call: Call[api.ShedWorkParams, life.ProvisionShed]) -> Work[api.Shed]:
    """Clone the repository of a shed, if it was not, and run the hooks of its project."""
    name, wanted, manager = call.params.name, call.body, server.manager

    async def work(progress: Progress) -> api.Shed:
        failed = await manager.setup.provision(
            name, progress, again=wanted.again, limit=wanted.limit, agent=wanted.agent
        )
        return answer(api.Shed, {**manager.catalog.get(name), "failed": failed, "timings": progress.finish()})

    return Work(work)


async def stop(server: Server, call: Call[api.ShedWorkParams, NoBody]) -> Work[api.Shed]:
    """Stop a running shed."""

    async def work(progress: Progress) -> api.Shed:
        return answer(api.Shed, await server.manager.stop(call.params.name, progress))

    return Work(work)


async def suspend(server: Server, call: Call[api.ShedWorkParams, NoBody]) -> Work[api.Shed]:
    """Suspend a running shed."""
    name, manager = call.params.name, server.manager

    async def work(progress: Progress) -> api.Shed:
        record = await manager.suspensions.suspend(name, progress)
        return answer(api.Shed, manager.catalog.done("suspend", record, progress))

    return Work(work)


async def resume(server: Server, call: Call[api.ShedWorkParams, life.ResumeShed]) -> Work[api.Shed]:
    """Have a suspended shed go on."""
    name, force, manager = call.params.name, call.body.force, server.manager
    if force:
        call.caller.require(Right.ADMIN, "force")

    async def work(progress: Progress) -> api.Shed:
        record, way = await manager.suspensions.resume(name, progress, force=force)
        return answer(api.Shed, manager.catalog.done("resume", record, progress, way))

    return Work(work)


async def update(server: Server, call: Call[api.ShedWorkParams, UpdateShed]) -> Work[api.Shed]:
    """Change what a shed has of processors, memory and disk, and where it may use SSH agents."""
    name, wanted = call.params.name, call.body
    if wanted.ssh_agent:
        call.caller.require(Right.ADMIN, "the use of an SSH agent")

    async def work(progress: Progress) -> api.Shed:
        changed = await server.manager.update(name, wanted, progress)
        if (wanted.env or wanted.no_env) and not await server.manager.changes.equip(name):
            progress.warn(f"its commands have these variables from its next start on: shed restart {name}")
        await _tell_of_hosts(wanted.ssh_agent, progress)
        return answer(api.Shed, changed)

    return Work(work)


async def _tell_of_hosts(words: list[str] | None, progress: Progress) -> None:
    """Tell of which hosts of a rule for SSH agents no key is known here."""
    for text in await in_long_thread(_strangers, words) if words else ():
        progress.warn(text)


def _strangers(words: list[str]) -> list[str]:
    from shed.server.ssh.knownhosts import strangers  # noqa: PLC0415  see the package

    return strangers(words)


async def rename(server: Server, call: Call[api.ShedParams, api.RenameShed]) -> api.Shed:
    """Give a stopped shed another name."""
    return answer(api.Shed, await server.manager.rename(call.params.name, call.body.to))


async def delete(server: Server, call: Call[api.DeleteParams, NoBody]) -> Work[api.Deleted]:
    """Remove a shed."""
    name, wanted = call.params.name, call.params

    async def work(progress: Progress) -> api.Deleted:
        if wanted.unfinished:
            await server.manager.undo_create(name, progress)
        else:
            await server.manager.delete(name, force=wanted.force, progress=progress)
        return api.Deleted(name=name, timings=progress.finish())

    return Work(work)


async def logs(server: Server, call: Call[api.LogParams, NoBody]) -> Answer | Upgrade:
    """Show the end of the VM's console log.  A client that upgrades also gets what follows."""
    name, lines = call.params.name, call.params.tail
    if call.upgrades():
        return Upgrade(LOG, server.manager.catalog.follow_console(name, lines=lines), half_close=False)
    return Answer(200, server.manager.catalog.console_log(name, lines=lines), "text/plain; charset=utf-8")


async def health(server: Server, call: Call[api.ShedParams, NoBody]) -> api.Health:
    """Ask the guest of a running shed how it is."""
    said = await server.manager.guests.health(call.params.name)
    try:
        return answer(api.Health, said)
    except msgspec.ValidationError as error:
        raise BackendError(
            f"the agent of shed {call.params.name!r} answers nonsense: {error}", code="AGENT_PROTOCOL"
        ) from None


async def workspace(server: Server, call: Call[folder.WorkspaceParams, NoBody]) -> folder.Workspace:
    """Tell what in a folder that a shed shares may run on this machine."""
    wanted = call.params
    found = await in_long_thread(
        server.manager.catalog.look_at_workspace, wanted.name, wanted.after, mountspec.check_target(wanted.mount)
    )
    return answer(folder.Workspace, found)


async def execute(server: Server, call: Call[api.ShedParams, NoBody]) -> Upgrade:
    """Turn the connection into an exec stream, starting the shed when it is stopped."""
    call.upgrades()
    return Upgrade(EXEC, await server.manager.guests.open_exec(call.params.name, call.request.tell), half_close=False)


async def connect(server: Server, call: Call[api.PortParams, NoBody]) -> Upgrade:
    """Turn the connection into one to a port of the shed."""
    call.upgrades()
    return Upgrade(CONNECT, await server.manager.guests.open_port(call.params.name, call.params.port), half_close=True)


async def all_sessions(server: Server, call: Call[Nothing, NoBody]) -> api.SessionList:
    """List the sessions of all running sheds; a shed that does not answer becomes a warning."""
    found, warnings = await sessions.all_sessions(server.manager)
    return api.SessionList(sessions=[answer(api.Session, session) for session in found], warnings=warnings)


async def shed_sessions(server: Server, call: Call[api.ShedParams, NoBody]) -> api.ShedSessions:
    """List the sessions of one shed."""
    found = await sessions.list_sessions(server.manager, call.params.name)
    return api.ShedSessions(sessions=[answer(api.Session, session) for session in found])


async def kill_session(server: Server, call: Call[api.SessionParams, NoBody]) -> api.EndedSession:
    """End a session."""
    await sessions.kill_session(server.manager, call.params.name, call.params.session)
    return api.EndedSession(name=call.params.session, shed=call.params.name)


ROUTES = (
    route(endpoints.LIST_SHEDS, index),
    route(endpoints.CREATE_SHED, create),
    route(endpoints.STATS, stats),
    route(endpoints.GET_SHED, show),
    route(endpoints.DELETE_SHED, delete),
    route(life.START_SHED, start),
    route(life.STOP_SHED, stop),
    route(life.PROVISION_SHED, provision),
    route(life.SUSPEND_SHED, suspend),
    route(life.RESUME_SHED, resume),
    route(endpoints.UPDATE_SHED, update),
    route(endpoints.RENAME_SHED, rename),
    route(endpoints.SHED_LOGS, logs),
    route(endpoints.SHED_HEALTH, health),
    route(endpoints.CHECK_WORKSPACE, workspace),
    route(endpoints.EXEC, execute),
    route(endpoints.CONNECT, connect),
    route(endpoints.LIST_SESSIONS, all_sessions),
    route(endpoints.SHED_SESSIONS, shed_sessions),
    route(endpoints.KILL_SESSION, kill_session),
)
