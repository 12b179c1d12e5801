"""One agent's session: the sheds that it made or was given, within what its user grants."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shed.client.address import Address
from shed.client.aio import driver
from shed.client.aio.api import AsyncApi
from shed.client.aio.attached import AsyncAttached
from shed.client.forward import Forwarder, Rule
from shed.client.options import ShedOptions
from shed.errors import ForbiddenError, NotFoundError, ShedError, UsageError, heard
from shed.mcp.files import Files
from shed.mcp.grant import Grant, no_shed
from shed.mcp.running import Commands
from shed.mcp.shell import Shell
from shed.names import check_shed_name
from shed.progress import Event

MOST_CHECKPOINTS, MOST_FORWARDS = 16, 16
_LONGEST = 40
"""Characters of the name that an agent chooses for a shed."""
Sink = Callable[[Event], object]
T = TypeVar("T")


@dataclass(slots=True)
class Held:
    """A shed that the session may use; one that is not `ours` was there before."""

    name: str
    ours: bool
    cpus: int = 0
    memory_mb: int = 0
    attached: AsyncAttached | None = None
    """The connection with which it ends."""
    checkpoints: list[str] = field(default_factory=list)
    urls: dict[int, str] = field(default_factory=dict)
    """Where its ports are on this machine."""
    forwarder: Forwarder | None = None


class Session:
    """What an agent has on the server at `address`."""

    def __init__(self, address: Address, grant: Grant) -> None:
        address.client = "mcp"
        self.grant = grant
        self.word = os.urandom(3).hex()
        """Part of the name of all that the session makes."""
        self.api = AsyncApi(address)
        self._shell = Shell(address, self.word)
        self.commands = Commands(self._shell)
        self.files = Files(address, self._shell, grant.folder)
        self.sheds = {name: Held(check_shed_name(name), ours=False) for name in grant.sheds}
        self._making: list[Held] = []
        self._working: set[asyncio.Task[Any]] = set()
        self._befores = 0
        """Snapshots of what sheds of the user's were before they were rolled back; they stay."""
        self._number = 0
        self._ends = time.monotonic() + grant.seconds

    @property
    def left(self) -> float:
        """How many seconds the session has yet; not 0."""
        return max(1.0, self._ends - time.monotonic())

    def use(self, name: str | None) -> Held:
        """Return one of the session's sheds, without `name` the only one.  Raises `NotFoundError`, `UsageError`."""
        known = list(self.sheds)
        if name is None:
            if len(known) == 1:
                return self.sheds[known[0]]
            if known:
                raise UsageError("there are several sheds", hint=f"name one: {', '.join(known)}")
            raise NotFoundError("there is no shed yet", code="SHED_NOT_FOUND", hint="make one: create")
        if (found := self.sheds.get(name)) is None:
            raise no_shed(name, known)
        return found

    async def create(self, name: str | None, options: ShedOptions, tell: Sink) -> tuple[Held, dict[str, Any]]:
        """Make a shed whose name begins with `name`; return it, and what the server says of it.

        Raises `ForbiddenError` where that goes beyond the grant: then there is no shed.
        """
        chosen = self._name(name)
        with self._room(1, options.get("cpus") or 1, options.get("memory_mb") or 1):
            options = {**options, "labels": {"mcp": self.word}, "timeout": 600.0}
            attached = None
            if self.grant.keep:
                made = await self._create_kept(chosen, options, tell)
            else:
                options["ttl"] = self.left  # if the server, too, is gone when the session ends
                attached = AsyncAttached(self.api.address, chosen, options)
                made = await attached.make(tell)
            held = Held(chosen, True, int(made.get("cpus", 0)), int(made.get("memory_mb", 0)), attached)
        self.sheds[chosen] = held
        try:
            self._check(0, 0, 0)
        except ForbiddenError:
            await self.delete(held)
            raise
        return held, made

    async def _create_kept(self, name: str, options: ShedOptions, tell: Sink) -> dict[str, Any]:
        try:
            return await self.api.create(name, on_event=tell, **options)
        except asyncio.CancelledError:  # the server would go on, for nobody
            with contextlib.suppress(ShedError):
                await driver.shielded(self.api.delete, name, force=True)
            raise

    async def fork(self, source: Held, count: int, tell: Sink) -> list[Held]:
        """Make sheds that go on from what `source` is now: all of them, or none."""
        about = await self.api.shed(source.name)
        cpus, memory = int(about.get("cpus", 0)), int(about.get("memory_mb", 0))

        async def work() -> tuple[list[Held], list[dict[str, Any]]]:
            with self._room(count, cpus * count, memory * count):
                answers = await self.api.fork(source.name, self._name("fork"), count=count, on_event=tell)
                made = [Held(str(each["name"]), True, cpus, memory) for each in answers if each.get("shed")]
            self.sheds |= {held.name: held for held in made}
            if not self.grant.keep:
                for held in made:
                    await self.api.update(held.name, ttl=self.left)
            return made, answers

        made, answers = await self._to_the_end(work())
        failed = next((each for each in answers if not each.get("shed")), None)
        if failed is not None:
            for held in made:
                await self.delete(held)
            raise heard(str(failed.get("message")), code=str(failed.get("code")), hint=str(failed.get("hint", "")))
        return made

    async def checkpoint(self, held: Held, note: str, tell: Sink) -> str:
        """Keep what a shed is now; return the name of that."""
        self._check_snapshots()
        name = self._name("checkpoint")
        held.checkpoints.append(name)
        try:
            await self._to_the_end(self.api.create_snapshot(held.name, name, comment=note, on_event=tell))
        except ShedError:
            held.checkpoints.remove(name)
            raise
        return name

    def _check_snapshots(self) -> None:
        """Raise `ForbiddenError` when the session has left as many as it may."""
        if sum(len(each.checkpoints) for each in self.sheds.values()) + self._befores >= MOST_CHECKPOINTS:
            raise ForbiddenError(
                f"the session has {MOST_CHECKPOINTS} checkpoints already", hint="go back to one, or delete a shed"
            )

    async def roll_back(self, held: Held, checkpoint: str | None, tell: Sink) -> str:
        """Have a shed go back to one of its checkpoints, the last one if none is named; return which.

        What a shed of the user's was before is kept as a snapshot; what one of the session's was is gone.
        """
        if not held.checkpoints:
            raise NotFoundError(f"{held.name} has no checkpoint of this session", hint="make one first: checkpoint")
        chosen = checkpoint or held.checkpoints[-1]
        if chosen not in held.checkpoints:
            raise NotFoundError(f"{held.name} has no such checkpoint", hint=f"it has {', '.join(held.checkpoints)}")
        if not held.ours:
            self._check_snapshots()
            self._befores += 1
        await self.commands.end(held.name)
        await self.api.rollback(held.name, chosen, discard=held.ours, on_event=tell)
        return chosen

    async def forward(self, held: Held, port: int) -> str:
        """Have a port of this machine's loopback lead to a port of a shed until the session ends; return its URL."""
        if port not in held.urls:
            if sum(len(each.urls) for each in self.sheds.values()) >= MOST_FORWARDS:
                raise ForbiddenError(f"{MOST_FORWARDS} ports are forwarded already", hint="delete a shed")
            held.forwarder = held.forwarder or Forwarder(self.api.address, held.name)
            held.urls[port] = ""
            try:
                (_, local), *_ = await held.forwarder.listen(Rule(0, port))
            except BaseException:
                held.urls.pop(port, None)
                raise
            held.urls[port] = f"http://localhost:{local}"
        return held.urls[port]

    async def delete(self, held: Held) -> None:
        """Delete a shed that the session made, with its checkpoints."""
        if not held.ours:
            raise ForbiddenError(f"{held.name} was there before this session", hint="its user deletes it")
        await self._leave(held)
        ending = held.attached.leave() if held.attached else self._gone(self.api.delete(held.name, force=True))
        await asyncio.gather(ending, self._forget(held))
        self.sheds.pop(held.name, None)

    async def close(self) -> list[str]:
        """End all of it, and delete what the session made, unless that is to be kept.

        Returns a sentence for each thing that is left although it should not.
        """
        await self.commands.end()
        await asyncio.gather(*self._working, return_exceptions=True)
        failed: list[str] = []
        if not self.grant.keep:
            doing = [self.delete(held) if held.ours else self._forget(held) for held in self.sheds.values()]
            done = await asyncio.gather(*doing, return_exceptions=True)
            failed = [problem.message for problem in done if isinstance(problem, ShedError)]
        await asyncio.gather(*(self._clear(held) for held in self.sheds.values()))
        return failed

    async def _clear(self, held: Held) -> None:
        """Take from a shed that stays what the session has left in its ``/tmp``."""
        await self._leave(held)
        with contextlib.suppress(ShedError):
            if self._shell.used(held.name) and (await self.api.shed(held.name)).get("status") == "running":
                await self._shell.clear(held.name)

    async def _leave(self, held: Held) -> None:
        await self.commands.end(held.name)
        if held.forwarder is not None:
            await held.forwarder.close()
        held.forwarder = None
        held.urls.clear()

    async def _forget(self, held: Held) -> None:
        """Remove the checkpoints of a shed."""
        names, held.checkpoints = held.checkpoints, []
        await asyncio.gather(*(self._gone(self.api.remove_snapshot(name)) for name in names))

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; it goes on when this is cancelled, for the server does it all the same."""
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await asyncio.shield(task)

    @staticmethod
    async def _gone(deleting: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(NotFoundError):
            await deleting

    def _name(self, wish: str | None) -> str:
        """Return a name that no other session gives, nor this one again.  Raises `UsageError`."""
        self._number += 1
        return f"{check_shed_name(wish or 'mcp')[:_LONGEST].rstrip('-')}-{self.word}-{self._number}"

    @contextlib.contextmanager
    def _room(self, count: int, cpus: int, memory_mb: int) -> Iterator[None]:
        """Hold room for new sheds, so that several calls together get no more than the grant has.

        Raises `ForbiddenError`.
        """
        self._check(count, cpus, memory_mb)
        making = [Held("", True, cpus // count, memory_mb // count) for _ in range(count)]
        self._making += making
        try:
            yield
        finally:
            self._making = [each for each in self._making if not any(each is one for one in making)]

    def _check(self, count: int, cpus: int, memory_mb: int) -> None:
        """Raise `ForbiddenError` when the session would have more than it is granted."""
        ours = [held for held in [*self.sheds.values(), *self._making] if held.ours]
        for what, used, more, most, flag in (
            ("sheds", len(ours), count, self.grant.most_sheds, "--most-sheds"),
            ("processors", sum(held.cpus for held in ours), cpus, self.grant.cpus, "--cpus"),
            ("MiB of memory", sum(held.memory_mb for held in ours), memory_mb, self.grant.memory_mb, "--memory"),
        ):
            if used + more > most:
                raise ForbiddenError(
                    f"this session may have {most} {what} together, {used} are taken",
                    hint=f"delete a shed, or ask for less; the user sets it by {flag}",
                )
