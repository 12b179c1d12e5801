"""The tools of an agent: what each one does with its arguments, and what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from shed.api.base import Body
from shed.client import patches
from shed.client.exchange import INCOMING
from shed.client.options import ShedOptions
from shed.errors import BackendError, ShedError
from shed.mcp import arguments as given
from shed.mcp.grant import check_allowed
from shed.mcp.running import Running
from shed.mcp.session import Held, Session, Sink
from shed.untrusted import told

A = TypeVar("A", bound=Body)
_LOG = 500
"""Entries of the egress log that are looked at."""
_PATCH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Tool(Generic[A]):
    """One tool: its arguments, and what it does.  Its name is that of the arguments, in lower case."""

    arguments: type[A]
    run: Callable[[Session, A, Sink], Awaitable[str]]
    """Returns what the model is told.  Raises `ShedError`."""
    reads: bool = False
    """Whether it changes nothing."""
    destroys: bool = False
    """Whether something may be gone after it."""
    exact: bool = False
    """Whether what it says is the text of a file or a patch, which is told as it is."""
    needs_folder: bool = False
    """Whether it is there only when the user allows a folder of this machine."""

    @property
    def name(self) -> str:
        """What a model calls it."""
        return self.arguments.__name__.lower()


async def create(session: Session, asked: given.Create, tell: Sink) -> str:
    """Make a shed within the grant."""
    grant = session.grant
    check_allowed("image", asked.image, grant.images, "--allow-image")
    check_allowed("prebuild", asked.prebuild, grant.prebuilds, "--allow-prebuild")
    check_allowed("egress profile", asked.profile, grant.profiles, "--allow-profile")
    options: ShedOptions = {"cpus": asked.cpus, "memory_mb": asked.memory_mb}
    if asked.repo is not None:
        grant.check_repo(asked.repo)
        options["repo"] = asked.repo
    if asked.prebuild is not None:
        options["prebuild"] = asked.prebuild
    if asked.image is not None:
        options["image"] = asked.image
    elif asked.prebuild is None and grant.images:
        options["image"] = grant.images[0]
    if asked.profile is not None:
        options["egress"] = [asked.profile]
    held, made = await session.create(asked.name, options, tell)
    failed = "".join(f"\nnot done in it: {told(each)}" for each in made.get("failed", []))
    return f"{held.name} runs: image {made.get('image')}, {held.cpus} processors, {held.memory_mb} MiB{failed}"


async def list_sheds(session: Session, asked: given.List, tell: Sink) -> str:
    """Tell of the session's sheds, and of nothing else."""
    lines = []
    for held in [*session.sheds.values()]:
        try:
            about = await session.api.shed(held.name)
            how = f"{about.get('status')}, image {about.get('image')}, {about.get('cpus')} processors, "
            how += f"{about.get('memory_mb')} MiB"
        except ShedError as error:
            how = error.message
        lines.append(f"{held.name}: {how}{'' if held.ours else ', was there before'}")
        lines += [f"  checkpoint {name}" for name in held.checkpoints]
        lines += [f"  port {port}: {url}" for port, url in held.urls.items()]
        lines += [
            f"  command {one.number}: {one.state()}: {told(one.command)}" for one in session.commands.of(held.name)
        ]
    return "\n".join(lines) or "there is no shed yet: create makes one"


async def execute(session: Session, asked: given.Exec, tell: Sink) -> str:
    """Run a command, or start it."""
    shed = session.use(asked.shed).name
    if asked.background:
        running = await session.commands.start(shed, asked.command, asked.folder)
        return f"command {running.number} runs in the background: ask for its output by process"
    running, folder, output = await session.commands.run(shed, asked.command, asked.timeout, asked.folder)
    if running.lost:
        raise BackendError(running.lost, code="EXEC_LOST", hint="see how the shed is: list")
    if running.late:
        how = f"killed after {asked.timeout:g} s; give it more by timeout, or run it with background"
    else:
        how = f"{running.state()}, in {folder}"
    return f"[{how}]\n{output.decode(errors='surrogateescape')}"


async def process(session: Session, asked: given.Process, tell: Sink) -> str:
    """Tell what a command in the background has written since the last time."""
    running = session.commands.get(asked.number)
    if asked.kill:
        await running.kill()
    else:
        await running.wait(asked.wait)
    return f"[{running.state()}]\n{(await _more(session, running)).decode(errors='surrogateescape')}"


async def _more(session: Session, running: Running) -> bytes:
    session.use(running.shed)
    return await session.commands.more(running)


async def read(session: Session, asked: given.Read, tell: Sink) -> str:
    """Read lines of a file."""
    return await session.files.read(session.use(asked.shed).name, asked.path, asked.first_line, asked.lines)


async def write(session: Session, asked: given.Write, tell: Sink) -> str:
    """Write a file."""
    size = await session.files.write(session.use(asked.shed).name, asked.path, asked.content)
    return f"wrote {size} bytes to {asked.path}"


async def edit(session: Session, asked: given.Edit, tell: Sink) -> str:
    """Replace a text in a file."""
    shed = session.use(asked.shed).name
    count = await session.files.edit(shed, asked.path, asked.old, asked.new, everywhere=asked.all)
    return f"changed {asked.path}" + (f" in {count} places" if count > 1 else "")


async def find(session: Session, asked: given.Find, tell: Sink) -> str:
    """Find files, or lines in them."""
    return await session.files.find(session.use(asked.shed).name, asked.path, asked.name, asked.text)


async def copy(session: Session, asked: given.Copy, tell: Sink) -> str:
    """Copy between the user's folder and a shed."""
    shed = session.use(asked.shed).name
    if asked.direction == "upload":
        await session.files.upload(shed, asked.local, asked.path)
        return f"copied {asked.local} to {asked.path} of {shed}"
    await session.files.download(shed, asked.path, asked.local)
    return f"copied {asked.path} of {shed} to {INCOMING}/{asked.local} of the user's folder"


async def diff(session: Session, asked: given.Diff, tell: Sink) -> str:
    """Show what has changed in a repository."""
    shed = session.use(asked.shed).name
    script, env = patches.script(asked.base)
    running, _, output = await session.commands.run(shed, f"({script}) 2>/dev/null", _PATCH_SECONDS, asked.folder, env)
    if running.lost or running.late:
        raise BackendError(running.lost or f"git has taken longer than {_PATCH_SECONDS:g} s", code="EXEC_LOST")
    if running.code:
        error = patches.failure(shed, running.code, "", asked.base)
        error.hint = "name the folder of a repository, or a base; git log shows the commits"
        raise error
    return output.decode(errors="surrogateescape") or "nothing has changed"


async def checkpoint(session: Session, asked: given.Checkpoint, tell: Sink) -> str:
    """Keep what a shed is now."""
    held = session.use(asked.shed)
    name = await session.checkpoint(held, asked.note, tell)
    return f"{held.name} can be rolled back to {name}"


async def rollback(session: Session, asked: given.Rollback, tell: Sink) -> str:
    """Have a shed go back."""
    held = session.use(asked.shed)
    name = await session.roll_back(held, asked.checkpoint, tell)
    return f"{held.name} is what it was at {name}"


async def fork(session: Session, asked: given.Fork, tell: Sink) -> str:
    """Make copies of a shed."""
    made = await session.fork(session.use(asked.shed), asked.count, tell)
    return f"{', '.join(held.name for held in made)} run"


async def ports(session: Session, asked: given.Ports, tell: Sink) -> str:
    """Tell what listens in a shed, or where a port of it is here."""
    held = session.use(asked.shed)
    if asked.port is not None:
        return await session.forward(held, asked.port)
    found = await session.api.shed_ports(held.name)
    listening = found.get("listening") or []
    lines = [f"{each.get('port')}: {', '.join(map(told, each.get('addresses', [])))}" for each in listening]
    return "\n".join(lines) or told(found.get("problem") or "nothing listens in it")


async def egress(session: Session, asked: given.Egress, tell: Sink) -> str:
    """Tell what a shed was denied."""
    held = session.use(asked.shed)
    rules = await session.api.shed_egress(held.name)
    entries = await session.api.egress_log(held.name, tail=_LOG)
    shown = Counter(_decision(each) for each in entries if not (asked.denied and each.get("allowed")))
    lines = [f"{line}, {count} times" if count > 1 else line for line, count in shown.items()]
    head = f"profiles: {', '.join(rules.get('profiles', [])) or 'none, it reaches nothing'}"
    return "\n".join([head, *(lines or ["nothing was denied" if asked.denied else "nothing is logged"])])


def _decision(entry: dict[str, Any]) -> str:
    what = "allowed" if entry.get("allowed") else "denied"
    where = told(f"{entry.get('name') or entry.get('address')}:{entry.get('port')}")
    request = told(f" {entry['method']} {entry.get('path', '')}") if entry.get("method") else ""
    why = told(entry.get("error") or entry.get("rule") or "")
    return f"{what} {where}{request}" + (f": {why}" if why else "")


async def delete(session: Session, asked: given.Delete, tell: Sink) -> str:
    """Delete a shed of the session's."""
    held: Held = session.use(asked.shed)
    await session.delete(held)
    return f"{held.name} is deleted"


TOOLS: tuple[Tool[Any], ...] = (
    Tool(given.Create, create),
    Tool(given.List, list_sheds, reads=True),
    Tool(given.Exec, execute, destroys=True),
    Tool(given.Process, process),
    Tool(given.Read, read, reads=True, exact=True),
    Tool(given.Write, write, destroys=True),
    Tool(given.Edit, edit, destroys=True),
    Tool(given.Find, find, reads=True),
    Tool(given.Copy, copy, needs_folder=True),
    Tool(given.Diff, diff, reads=True, exact=True),
    Tool(given.Checkpoint, checkpoint),
    Tool(given.Rollback, rollback, destroys=True),
    Tool(given.Fork, fork),
    Tool(given.Ports, ports, reads=True),
    Tool(given.Egress, egress, reads=True),
    Tool(given.Delete, delete, destroys=True),
)
