"""The link to a shed's agent: who misuses it is not talked to for a while, and everybody is told."""

from __future__ import annotations

import asyncio

import pytest

from shed.backends.base import Connection, LinkAbusedError, Stream
from shed.progress import Progress
from shed.sheds.link import Link
from support.guests.guest_port import run
from support.servers.world import World, create


class Hung:
    """A connection that is there until the test says how it ends."""

    def __init__(self) -> None:
        self.hello: dict[str, object] = {}
        self.end: asyncio.Future[LinkAbusedError | None] = asyncio.get_running_loop().create_future()

    async def open(self, port: int) -> Stream:
        raise NotImplementedError

    async def wait_closed(self) -> LinkAbusedError | None:
        return await self.end

    async def close(self) -> None:
        if not self.end.done():
            self.end.set_result(None)


async def misuse(link: Link, made: list[Hung]) -> None:
    """Have the guest of the live `link` misuse it, and wait until that was seen."""
    made[-1].end.set_result(LinkAbusedError("it floods"))
    while link.live:
        await asyncio.sleep(0)


def test_a_guest_that_misuses_its_link_is_not_talked_to_for_a_while() -> None:
    """For longer each time; after a minute of a good one, all is forgotten."""

    async def work() -> None:
        now, made = [0.0], list[Hung]()

        async def dial() -> Connection:
            made.append(Hung())
            return made[-1]

        link = Link("dev", dial, clock=lambda: now[0])
        for pause in (2.0, 4.0, 8.0):
            await link.get()
            await misuse(link, made)
            now[0] += pause - 0.5
            with pytest.raises(LinkAbusedError, match="shed 'dev' is not talked to for 0 s: it floods") as caught:
                await link.get()
            assert caught.value.hint == "`shed stop dev` ends it, whatever it does"
            now[0] += 0.5
        assert len(made) == 3
        await link.get()
        assert link.misuse == "it floods"
        now[0] += 61
        assert link.misuse == ""
        await misuse(link, made)
        now[0] += 2
        await link.get()
        await link.drop()

    run(work)


def test_a_guest_that_was_started_anew_is_trusted_again() -> None:
    """What another guest of the same name did is not its fault; a link that ends otherwise is nobody's."""

    async def work() -> None:
        made = [Hung()]

        async def dial() -> Connection:
            raise LinkAbusedError("no hello")

        link = Link("dev", dial)
        with pytest.raises(LinkAbusedError, match="no hello"):
            await link.get()
        assert link.misuse == "no hello"
        link.set(made[0])
        assert link.misuse == ""
        await made[0].close()
        while link.live:
            await asyncio.sleep(0)
        assert link.misuse == ""

    run(work)


def test_the_list_says_who_misused_its_link(world: World) -> None:
    """With the next step; other sheds are as they were, and a stopped one says nothing of it."""

    async def work() -> None:
        async with world.manager() as manager:
            for name in ("bad", "good"):
                await create(manager, name)
            await manager._names["bad"].link.drop(LinkAbusedError("it floods"))
            sheds = {shed["name"]: shed for shed in manager.catalog.list()[0]}
            assert sheds["bad"]["status"] == "running"
            assert sheds["bad"]["detail"] == "its link was dropped: it floods; `shed stop bad` ends it"
            assert "detail" not in sheds["good"]
            with pytest.raises(LinkAbusedError, match="not talked to"):
                await manager.guests.open_exec("bad")
            (await manager.guests.open_exec("good")).close()
            await manager.stop("bad", Progress())
            assert "detail" not in manager.catalog.get("bad")

    run(work)
