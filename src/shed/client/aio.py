"""The Python SDK for asyncio: `AsyncClient` and `AsyncShed`.  ``from shed import AsyncClient``.

Requests, commands and connections are asyncio's own streams; what they say is encoded and decoded by the code that the
other client uses.  Folders are copied in a thread, since reading and writing them here waits for the disk in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from shed.client import client as api
from shed.client import commands, streams
from shed.client.address import Address
from shed.client.asynchttp import AsyncExchange
from shed.client.asyncprocess import AsyncProcess
from shed.client.client import Sink
from shed.client.commands import Command, Result, content_of
from shed.client.config import resolve
from shed.client.forward import Forwarder, Rule
from shed.client.http import went_away
from shed.client.models import Shed as Info
from shed.client.sheds import READ, RUNTIME, WRITE, absolute, copy, ignore, new_name
from shed.errors import NotFoundError, ShedError


class AsyncClient:
    """What `shed.Client` is, for asyncio."""

    def __init__(self, server: str | None = None, *, token: str | None = None) -> None:
        self.address: Address = resolve(server)
        self.address.token = token

    async def info(self) -> dict[str, Any]:
        """Return what the server says of itself."""
        return api.object_of(await self._ask("GET", "/api/info"))

    async def create(
        self,
        name: str | None = None,
        *,
        image: str | None = None,
        cpus: int | None = None,
        memory_mb: int | None = None,
        upper_size_bytes: int | None = None,
        local_dir: str | os.PathLike[str] | None = None,
        local_dir_mode: str | None = None,
        timeout: float | None = 600.0,
        cold: bool = False,
        force: bool = False,
        trust_kernel: bool = False,
        on_event: Sink = ignore,
    ) -> AsyncShed:
        """Create a shed and return it, running; see `shed.Client.create`.

        It is the subject of an ``async with`` block.
        """
        chosen = new_name(name)
        body = api.create_body(
            chosen,
            image=image,
            cpus=cpus,
            memory_mb=memory_mb,
            upper_size_bytes=upper_size_bytes,
            local_dir=absolute(local_dir),
            local_dir_mode=local_dir_mode,
            timeout=timeout,
            cold=cold or None,
            force=force or None,
            trust_kernel=trust_kernel or None,
        )
        try:
            info = await self._work("POST", api.CREATE, body=body, on_event=on_event)
        except BaseException as error:
            if name is None and not isinstance(error, ShedError):  # cancelled: the server would go on, for nobody
                with contextlib.suppress(ShedError):
                    await asyncio.shield(self._work("DELETE", api.delete_target(chosen, force=True)))
            raise
        return AsyncShed(self, Info.from_wire(info), ours=True)

    async def get(self, name: str) -> AsyncShed:
        """Return a shed that exists.  Raises `NotFoundError` (SHED_NOT_FOUND)."""
        return AsyncShed(self, await self._info(name))

    async def images(self) -> list[dict[str, Any]]:
        """Return the images in the server's store."""
        return [api.object_of(item) for item in api.items_of(await self._ask("GET", "/api/images"), "images")]

    async def pull(
        self, reference: str, *, tag: str | None = None, detach: bool = False, on_event: Sink = ignore
    ) -> dict[str, Any]:
        """Have the server pull an image; return its tag and digest.

        The pull ends when this program does, unless it is to `detach`.
        """
        target = f"{api.PULL}&detach=true" if detach else api.PULL
        return await self._work("POST", target, body={"docker_ref": reference, "tag": tag}, on_event=on_event)

    async def list(self) -> list[AsyncShed]:
        """Return all sheds of the server."""
        found = api.items_of(await self._ask("GET", "/api/sheds"), "sheds")
        return [AsyncShed(self, Info.from_wire(api.object_of(item))) for item in found]

    async def _info(self, name: str) -> Info:
        return Info.from_wire(api.object_of(await self._ask("GET", api.shed_target(name))))

    async def _ask(self, method: str, target: str) -> Any:
        """Send one request and return what the server answers."""
        async with AsyncExchange(self.address, method, target) as exchange:
            return exchange.answer.value(await exchange.read())

    async def _work(self, method: str, target: str, *, body: object = None, on_event: Sink = ignore) -> dict[str, Any]:
        """Have the server do something that takes long, and return its result.

        What happens meanwhile goes to `on_event`.
        """
        async with AsyncExchange(self.address, method, target, body=body, accept="text/event-stream") as exchange:
            async for event in exchange.events():
                if event.name == "complete":
                    return event.data
                if (shown := api.progress_event(event)) is not None:
                    on_event(shown)
        raise went_away()


class AsyncShed:
    """What `shed.Shed` is, for asyncio."""

    def __init__(self, client: AsyncClient, info: Info, *, ours: bool = False) -> None:
        self._client = client
        self._ours = ours
        self.name = info.name
        self.info = info
        """What the server said last: see `refresh`."""

    def __repr__(self) -> str:
        return f"<AsyncShed {self.name} on {self._client.address}: {self.info.status}>"

    async def __aenter__(self) -> AsyncShed:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._ours:
            try:
                await asyncio.shield(self.delete(missing_ok=True))  # also when the block was cancelled
            except ShedError:
                if kind is None:
                    raise

    @property
    def status(self) -> str:
        """Return the status, as the server said last."""
        return self.info.status

    async def refresh(self) -> AsyncShed:
        """Ask the server how the shed is now."""
        self.info = await self._client._info(self.name)  # noqa: SLF001  of this module
        return self

    async def start(self, *, cold: bool = False, force: bool = False) -> None:
        """Start it; its files are those it had.  `cold` and `force` as for `shed.Client.create`."""
        self.info = Info.from_wire(await self._work("POST", api.start_target(self.name, cold=cold, force=force)))

    async def stop(self) -> None:
        """Stop it; its files stay."""
        self.info = Info.from_wire(await self._work("POST", api.shed_target(self.name, "stop")))

    async def delete(self, *, missing_ok: bool = False) -> None:
        """Delete it and its files, also while it runs."""
        try:
            await self._work("DELETE", api.delete_target(self.name, force=True))
        except NotFoundError:
            if not missing_ok:
                raise

    async def logs(self) -> str:
        """Return the text on its console since its last start."""
        return str(await self._client._ask("GET", api.shed_target(self.name, "logs")) or "")  # noqa: SLF001  of this module

    async def popen(
        self, command: Command, *, env: Mapping[str, str] | None = None, cwd: str | None = None, user: str | None = None
    ) -> AsyncProcess:
        """Start a command and return it with its streams; a stopped shed is started first."""
        words = commands.words_of(command)
        return await AsyncProcess.start(
            self._client.address, self.name, words, env=commands.assignments(env), working_dir=cwd, user=user
        )

    async def exec(
        self,
        command: Command,
        *,
        stdin: bytes | str = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> Result:
        """Run a command to its end and return what it did; see `shed.Shed.exec`."""
        async with await self.popen(command, env=env, cwd=cwd, user=user) as process:
            result = await process.communicate(stdin.encode() if isinstance(stdin, str) else stdin, timeout=timeout)
        return result.check() if check else result

    async def read_file(self, path: str, *, user: str | None = None) -> bytes:
        """Return the content of a file; a path that does not begin with ``/`` is one in the workspace."""
        return content_of(await self.exec([*READ, path], user=user), path)

    async def write_file(self, path: str, content: bytes | str, *, mode: int = 0o644, user: str | None = None) -> None:
        """Write a file in one step, and make the folders that lead to it."""
        await self.exec([RUNTIME, "sh", "-c", WRITE, "sh", path, f"{mode:o}"], stdin=content, user=user, check=True)

    async def upload(self, source: str | os.PathLike[str], target: str, *, user: str | None = None) -> None:
        """Copy a file or folder of this machine into the shed, by the rules of ``shed cp`` and ``docker cp``."""
        await asyncio.to_thread(copy, self._client.address, ("", os.fspath(source)), (self.name, target), user)

    async def download(self, source: str, target: str | os.PathLike[str], *, user: str | None = None) -> None:
        """Copy a file or folder of the shed to this machine, by the rules of ``shed cp`` and ``docker cp``."""
        await asyncio.to_thread(copy, self._client.address, (self.name, source), ("", os.fspath(target)), user)

    async def connect(self, port: int) -> streams.Streams:
        """Return a reader and a writer of a TCP port of the shed's loopback.

        Raises `ConnectError` when nothing listens there.
        """
        return await streams.upgrade(self._client.address, "GET", api.connect_target(self.name, port), api.CONNECT)

    @contextlib.asynccontextmanager
    async def forward(self, port: int, *, local: int = 0) -> AsyncIterator[int]:
        """Have a port of this machine's loopback lead to a port of the shed while the block lasts.

        Yields the local port.
        """
        forwarder = Forwarder(self._client.address, self.name, start=True)
        try:
            bound = await forwarder.listen(Rule(local, port))
            yield bound[0][1]
        finally:
            await forwarder.close()

    async def _work(self, method: str, target: str) -> dict[str, Any]:
        return await self._client._work(method, target)  # noqa: SLF001  of this module
