"""The Python SDK: `AsyncShed`, one shed, which `AsyncClient` returns."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping

from shed.api import sheds, snapshots, workspace
from shed.api.mounts import ShedMounts
from shed.api.ports import ShedPorts
from shed.api.secrets import ShedSecrets
from shed.client.aio import driver, process
from shed.client.aio.process import AsyncProcess
from shed.client.commands import Command, Input, Result, assignments, content_of, words_of
from shed.client.copying import copy
from shed.client.typed import typed
from shed.errors import NotFoundError, ShedError, heard
from shed.names import check_shed_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Unpack

    from shed.client.aio.client import AsyncClient
    from shed.client.aio.requests import Sink
    from shed.client.options import ShedChanges

RUNTIME = "/run/shed-runtime/bin/busybox"
"""Works in every image."""
_LONGEST = 40
"""Characters of a shed's name in those of its forks, which have others behind them."""
_READ = [RUNTIME, "cat", "--"]
_WRITE = """set -e
d=$(dirname -- "$1"); mkdir -p -- "$d"; t=$(mktemp -p "$d" .shed.XXXXXX)
trap 'rm -f -- "$t"' EXIT
cat > "$t"; chmod "$2" "$t"; mv -f -- "$t" "$1"; trap - EXIT"""
"""Writes standard input to the file $1 with mode $2: beside it first, so that nobody sees half of it."""


class AsyncForks(list["AsyncShed"]):
    """Sheds that were made together, which are deleted at the end of their ``with`` block, if there is one."""

    async def __aenter__(self) -> AsyncForks:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await driver.shielded(self.delete)
        except ShedError:
            if kind is None:
                raise

    async def delete(self) -> None:
        """Delete all of them that are there; raises for the first that cannot be, when the others are gone."""
        failed: ShedError | None = None
        for shed in self:
            try:
                await shed.delete(missing_ok=True)
            except ShedError as error:
                failed = failed or error
        if failed is not None:
            raise failed


class AsyncCheckpoint:
    """What a shed was when a block of `AsyncShed.checkpoint` began."""

    def __init__(self, shed: AsyncShed, snapshot: snapshots.Snapshot) -> None:
        self._shed = shed
        self.snapshot = snapshot

    async def rollback(self, *, keep: bool = False, on_event: Sink | None = None) -> None:
        """Have the shed go back to that, as often as need be; what it was meanwhile is gone, unless it is to `keep`.

        It goes on from the memory of then; without memory it must be stopped, and stays so.
        """
        await self._shed.rollback(self.snapshot.name, discard=not keep, on_event=on_event)


class AsyncShed:
    """One shed.  What `AsyncClient.create` returns is deleted at the end of its ``with`` block; others are not."""

    def __init__(self, client: AsyncClient, info: sheds.Shed, *, ours: bool = False) -> None:
        self._client = client
        self._api = client.api
        self._ours = ours
        self.name = check_shed_name(info.name)
        self.info = info
        """What the server said last: see `refresh`."""

    def __repr__(self) -> str:
        return f"<AsyncShed {self.name} on {self._client.address}: {self.info.status}>"

    async def __aenter__(self) -> AsyncShed:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._ours:
            try:
                await driver.shielded(self.delete, missing_ok=True)  # also when the block was interrupted
            except ShedError:
                if kind is None:
                    raise

    @property
    def status(self) -> str:
        """Return the status, as the server said last."""
        return self.info.status

    async def refresh(self) -> AsyncShed:
        """Ask the server how the shed is now."""
        self.info = typed(await self._api.shed(self.name), sheds.Shed)
        return self

    async def start(
        self, *, cold: bool = False, force: bool = False, disk_only: bool = False, on_event: Sink | None = None
    ) -> None:
        """Start it; its files are those it had, and if it was suspended, all goes on where it was, unless `disk_only`.

        `cold` and `force` as for `AsyncClient.create`.
        """
        started = await self._api.start(self.name, cold=cold, force=force, disk_only=disk_only, on_event=on_event)
        self.info = typed(started, sheds.Shed)

    async def suspend(self, *, on_event: Sink | None = None) -> None:
        """Put what is in its memory on the disk, and end its VM; what touches it has it go on where it was."""
        self.info = typed(await self._api.suspend(self.name, on_event=on_event), sheds.Shed)

    async def resume(self, *, force: bool = False, on_event: Sink | None = None) -> None:
        """Have it go on where it was, when it is suspended; `force` as for `AsyncClient.create`."""
        self.info = typed(await self._api.resume(self.name, force=force, on_event=on_event), sheds.Shed)

    @contextlib.asynccontextmanager
    async def awake(self, reason: str = "", *, seconds: float = 3600.0) -> AsyncIterator[None]:
        """Have it not be suspended for being idle while the block lasts, and for so many seconds at most.

        What that is for is shown with it.  A suspended one goes on.
        """
        lease = typed(await self._api.keep_awake(self.name, seconds=seconds, reason=reason), sheds.Lease)
        try:
            yield
        finally:
            with contextlib.suppress(NotFoundError):  # its time is over, or the shed is gone
                await driver.shielded(self._api.release_awake, self.name, lease.id)

    async def stop(self, *, on_event: Sink | None = None) -> None:
        """Stop it; its files stay."""
        self.info = typed(await self._api.stop(self.name, on_event=on_event), sheds.Shed)

    async def update(self, **changes: Unpack[ShedChanges]) -> None:
        """Change it; what is None stays.

        Processors and memory count from its next start on, its disk grows at once, and after `ttl` seconds from now its
        time is up.  The others are as for `AsyncClient.create`.
        """
        changed = await self._api.update(self.name, **changes)
        self.info = typed(changed, sheds.Shed)

    async def rename(self, to: str) -> None:
        """Give it another name; it must be stopped."""
        self.info = typed(await self._api.rename(self.name, to), sheds.Shed)

    async def snapshot(
        self, name: str | None = None, *, comment: str = "", disk_only: bool = False, on_event: Sink | None = None
    ) -> snapshots.Snapshot:
        """Keep what it has written and, while it runs, its memory, unless `disk_only`; it runs on.

        `AsyncClient.create` makes others of that.  Without `name` the snapshot gets that of the shed and a number.
        """
        made = await self._api.create_snapshot(self.name, name, comment=comment, disk_only=disk_only, on_event=on_event)
        return typed(made, snapshots.Snapshot)

    @contextlib.asynccontextmanager
    async def checkpoint(
        self, name: str | None = None, *, disk_only: bool = False, on_event: Sink | None = None
    ) -> AsyncIterator[AsyncCheckpoint]:
        """Keep what it is now, to which the block can roll it back; the parameters are those of `snapshot`.

        The snapshot is removed at the end of the block, unless it was given a `name`.
        """
        made = await self.snapshot(name, disk_only=disk_only, on_event=on_event)
        try:
            yield AsyncCheckpoint(self, made)
        finally:
            if name is None:
                with contextlib.suppress(NotFoundError):
                    await driver.shielded(self._api.remove_snapshot, made.name)

    async def fork(self, count: int = 1, *, name: str | None = None, on_event: Sink | None = None) -> AsyncForks:
        """Make `count` sheds that go on from what it is now, while it runs, and return them: all, or none.

        As the subject of a ``with`` block they are deleted when it ends.  One is called `name`; several are called
        that, a dash and a number.  Without it they get names of their own.  Raises what the first one failed with.
        """
        chosen = name or f"{self.name[:_LONGEST]}-fork-{os.urandom(3).hex()}"
        answers = await self._api.fork(self.name, chosen, count=count, on_event=on_event)
        found = [typed(each, snapshots.Fork) for each in answers]
        made = AsyncForks(AsyncShed(self._client, one.shed, ours=True) for one in found if one.shed is not None)
        failed = next((one for one in found if one.shed is None), None)
        if failed is not None:
            await made.delete()
            raise heard(failed.message, code=failed.code, hint=failed.hint)
        return made

    async def rollback(
        self,
        snapshot: str | None = None,
        *,
        discard: bool = False,
        disk_only: bool = False,
        on_event: Sink | None = None,
    ) -> None:
        """Have it go back to a snapshot, its last one without `snapshot`, and go on from its memory.

        Without memory, or with `disk_only`, it must be stopped, and stays so.  What it was is kept as a snapshot,
        unless that is to be `discard`ed.
        """
        rolled = await self._api.rollback(self.name, snapshot, discard=discard, disk_only=disk_only, on_event=on_event)
        self.info = typed(rolled, sheds.Shed)

    async def reset(self, *, on_event: Sink | None = None) -> None:
        """Have it begin anew, with its image alone, while it is stopped: what it has written is gone."""
        self.info = typed(await self._api.reset(self.name, on_event=on_event), sheds.Shed)

    async def delete(self, *, missing_ok: bool = False) -> None:
        """Delete it and its files, also while it runs."""
        try:
            await self._api.delete(self.name, force=True)
        except NotFoundError:
            if not missing_ok:
                raise

    async def logs(self, *, tail: int | None = None) -> str:
        """Return the text on its console since its last start, the last `tail` lines of it."""
        return await self._api.logs(self.name, tail=tail)

    def follow_logs(self, *, tail: int | None = None) -> AsyncIterator[bytes]:
        """Yield what `logs` returns, and then what the console says as it comes, until the shed is deleted."""
        return self._api.follow_logs(self.name, tail=tail)

    async def health(self) -> sheds.Health:
        """Return what the agent in it says of itself; it must run."""
        return typed(await self._api.health(self.name), sheds.Health)

    async def sessions(self) -> list[sheds.Session]:
        """Return the tmux sessions in it."""
        return typed(await self._api.sessions(self.name), list[sheds.Session])

    async def kill_session(self, session: str) -> None:
        """End a tmux session, and what runs in it."""
        await self._api.kill_session(self.name, session)

    async def check_workspace(self, *, mount: str | None = None) -> workspace.Workspace:
        """Return what in its workspace, or the folder at `mount`, may run on the server's machine by itself."""
        return typed(await self._api.check_workspace(self.name, mount=mount), workspace.Workspace)

    async def exec(
        self,
        command: Command,
        *,
        stdin: Input = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> Result:
        """Run a command to its end and return what it did; a stopped shed is started first.

        A text is run by ``sh -c``, words arrive as they are.  `stdin` is what it reads: bytes, text (UTF-8), or an open
        file.  With `check`, an exit code other than 0 raises `CommandError`; after `timeout` seconds the command is
        killed and `CommandTimeoutError` raised.
        """
        result = await process.run(
            self._client.address,
            self.name,
            words_of(command),
            stdin=stdin,
            env=assignments(env),
            working_dir=cwd,
            user=user,
            timeout=timeout,
        )
        return result.check() if check else result

    async def popen(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        merge: bool = False,
    ) -> AsyncProcess:
        """Start a command and return it with its streams; a stopped shed is started first.

        With `merge`, its standard error comes with its standard output.
        """
        return await AsyncProcess.start(
            self._client.address,
            self.name,
            words_of(command),
            env=assignments(env),
            working_dir=cwd,
            user=user,
            merge=merge,
        )

    async def read_file(self, path: str, *, user: str | None = None) -> bytes:
        """Return the content of a file; a path that does not begin with ``/`` is one in the workspace."""
        return content_of(await self.exec([*_READ, path], user=user), path)

    async def write_file(self, path: str, content: bytes | str, *, mode: int = 0o644, user: str | None = None) -> None:
        """Write a file in one step, and make the folders that lead to it."""
        await self.exec([RUNTIME, "sh", "-c", _WRITE, "sh", path, f"{mode:o}"], stdin=content, user=user, check=True)

    async def upload(self, source: str | os.PathLike[str], target: str, *, user: str | None = None) -> None:
        """Copy a file or folder of this machine into the shed, by the rules of ``shed cp`` and ``docker cp``."""
        places = ("", os.fspath(source)), (self.name, target)
        await driver.in_thread(copy, self._client.address, *places, user=user)

    async def download(self, source: str, target: str | os.PathLike[str], *, user: str | None = None) -> None:
        """Copy a file or folder of the shed to this machine, by the rules of ``shed cp`` and ``docker cp``."""
        places = (self.name, source), ("", os.fspath(target))
        await driver.in_thread(copy, self._client.address, *places, user=user)

    async def ports(self) -> ShedPorts:
        """Return the ports of the server's machine that lead into it, those that it reaches, and what listens in it."""
        return typed(await self._api.shed_ports(self.name), ShedPorts)

    async def change_ports(
        self,
        *,
        publish: list[str] | None = None,
        unpublish: list[int] | None = None,
        host_ports: list[str] | None = None,
        no_host_ports: list[int] | None = None,
    ) -> ShedPorts:
        """Give it ports and take others away, at once; return those that it has then.  See `AsyncClient.create`."""
        changed = await self._api.change_ports(
            self.name, publish=publish, unpublish=unpublish, host_ports=host_ports, no_host_ports=no_host_ports
        )
        return typed(changed, ShedPorts)

    async def mounts(self) -> list[sheds.Mount]:
        """Return the folders of the server's machine that it has, its workspace first."""
        return typed(await self._api.shed_mounts(self.name), ShedMounts).mounts

    async def change_mounts(
        self, *, add: list[str] | None = None, remove: list[str] | None = None, force: bool = False
    ) -> list[sheds.Mount]:
        """Give it folders (``SRC:DST[:MODE]``), take others away (DST), with `force` also used ones; return all."""
        return typed(await self._api.change_mounts(self.name, add=add, remove=remove, force=force), ShedMounts).mounts

    async def change_secrets(self, *, give: list[str] | None = None, take: list[str] | None = None) -> list[str]:
        """Give it secrets and take others away, by name, at once; return the names of those that it has then."""
        changed = await self._api.change_secrets(self.name, give=give, take=take)
        return typed(changed, ShedSecrets).secrets

    async def connect(self, port: int) -> driver.Stream:
        """Return a stream that leads to a TCP port of the shed's loopback.

        Raises `ConnectError` when nothing listens there.
        """
        return await self._api.connect(self.name, port)

    @contextlib.asynccontextmanager
    async def forward(self, port: int, *, local: int = 0) -> AsyncIterator[int]:
        """Have a port of this machine's loopback lead to a port of the shed while the block lasts.

        Yields the local port.
        """
        async with driver.forwarded(self._client.address, self.name, port, local) as bound:
            yield bound
