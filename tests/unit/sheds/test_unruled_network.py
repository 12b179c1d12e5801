"""`--network nic`: refused unless it is allowed, and told wherever such a shed is seen."""

from __future__ import annotations

import pytest

from shed.api.ports import ChangePorts
from shed.egress.network import uplink
from shed.errors import ConflictError, DataError, ForbiddenError, UnavailableError, UsageError
from shed.progress import Progress
from support.servers.world import World, create


@pytest.fixture
def allowed(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A server that allows it, on a host that has what it takes."""
    monkeypatch.setattr(uplink, "problem", lambda: "")
    world.with_settings(nic="allowed")
    return world


async def test_it_is_refused_by_default(world: World) -> None:
    """With what to do instead, and nothing is made."""
    async with world.manager() as manager:
        with pytest.raises(ForbiddenError) as caught:
            await create(manager, "lab", network="nic")
        assert caught.value.code == "NIC_REFUSED"
        assert "egress profile" in str(caught.value.hint)
        assert world.traces() == set()
        assert (await create(manager, "dev", network="relay"))["network"] == "relay"


async def test_without_its_program_it_is_refused(allowed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setattr(uplink, "problem", lambda: "the program slirp4netns is missing")
    async with allowed.manager() as manager:
        with pytest.raises(UnavailableError, match="slirp4netns is missing") as caught:
            await create(manager, "lab", network="nic")
        assert caught.value.code == "TOOL_MISSING"


@pytest.mark.parametrize(
    "options", [{"egress": ["offline"]}, {"egress": []}, {"host_ports": ["5432"]}, {"secrets": ["x"]}]
)
async def test_nobody_is_led_to_believe_that_it_is_ruled(allowed: World, options: dict[str, list[str]]) -> None:
    """Profiles and ports of the host would mean nothing, so they are refused: at the create and later."""
    async with allowed.manager() as manager:
        with pytest.raises(UsageError, match="no rule is asked"):
            await create(manager, "lab", network="nic", **options)
        await create(manager, "lab", network="nic")
        with pytest.raises(ConflictError) as caught:
            await manager.changes.set_profiles("lab", [])
        assert caught.value.code == "NETWORK_NOT_RULED"
        with pytest.raises(ConflictError):
            await manager.changes.change_secrets("lab", ["x"], [])
        with pytest.raises(ConflictError):
            await manager.changes.set_ports("lab", ChangePorts(host_ports=["5432"]))
        assert manager.egress.rules(manager.catalog.record("lab")) == []


async def test_it_is_told_at_each_start_and_in_each_list(allowed: World) -> None:
    """A warning to who starts it, and a line to who lists it, runs it or not."""
    said: list[str] = []

    class Listening(Progress):
        def warn(self, message: str) -> None:
            said.append(message)

    async with allowed.manager() as manager:
        shown = await create(manager, "lab", network="nic", ports=["7"])
        assert (shown["network"], "not ruled" in shown["detail"]) == ("nic", True)
        await manager.stop("lab", Progress())
        await manager.start("lab", Listening())
        assert any("its network is not ruled" in words for words in said)
        ((listed,), _) = manager.catalog.list()
        assert "not ruled" in listed["detail"]


async def test_what_the_administrator_takes_back_does_not_start(allowed: World) -> None:
    """The setting holds for sheds that were made before."""
    async with allowed.manager() as manager:
        await create(manager, "lab", network="nic")
        await manager.stop("lab", Progress())
    allowed.with_settings(nic="refused")
    async with allowed.manager() as manager:
        with pytest.raises(ForbiddenError):
            await manager.start("lab", Progress())


async def test_a_record_of_an_earlier_version_is_ruled(world: World) -> None:
    """And one with a kind that is none is damaged."""
    async with world.manager() as manager:
        await create(manager, "dev")
        file = world.instance("dev") / "metadata.json"
        before = file.read_text()
        file.write_text(before.replace('  "network": "relay",\n', ""))
        assert manager.catalog.record("dev").is_ruled
        file.write_text(before.replace('"network": "relay"', '"network": "other"'))
        with pytest.raises(DataError, match="network is 'other'"):
            manager.catalog.record("dev")
