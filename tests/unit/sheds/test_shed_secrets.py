"""The secrets of sheds: placeholders in place of values, an authority of one's own, and what the relay is told."""

import json
import logging
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shed.egress.secrets.secret import Secret
from shed.errors import ConflictError, NotFoundError
from shed.fsutil import data_extents
from shed.progress import Progress
from shed.sheds import metadata
from shed.sheds.manager import Manager
from support.servers.world import World, create

VALUE = "sk-a-value-that-nobody-may-see"


def keep(manager: Manager, *names: str, **more: Any) -> None:
    """Keep secrets of these names."""
    for name in names:
        manager.terms.secrets.store.set(name, {"hosts": ["api.example.com"], "value": f"{VALUE}-{name}", **more})


def told(world: World, name: str) -> list[dict[str, Any]]:
    """Return what the guest was told: the requests by which it was configured, and equipped anew."""
    lines = (world.instance(name) / "console.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


async def test_a_guest_has_placeholders_and_the_relay_values(world: World) -> None:
    """In variables; with the certificate of an authority that is this shed's alone, and whose key stays here."""
    async with world.manager() as manager:
        keep(manager, "api-key", "other")
        await create(manager, "dev", secrets=["api-key"])
        await create(manager, "two", secrets=["api-key", "other"])
        await create(manager, "none")
        records = {name: manager.catalog.record(name) for name in ("dev", "two", "none")}
        orders = {name: manager.terms.orders(record) for name, record in records.items()}
    relayed = {name: each.secrets for name, each in orders.items()}
    authorities = {name: each.authority for name, each in orders.items()}
    (dev,), two = told(world, "dev"), told(world, "two")[0]
    assert [secret.value for secret in relayed["two"]] == [f"{VALUE}-api-key", f"{VALUE}-other"]
    assert dev["variables"]["API_KEY"] == relayed["dev"][0].placeholder
    assert two["variables"]["API_KEY"] == relayed["two"][0].placeholder != dev["variables"]["API_KEY"]
    assert all(Secret.parse(secret.to_json()) == secret for secrets in relayed.values() for secret in secrets)
    assert authorities["dev"] is not None
    assert authorities["dev"].certificate in [each["pem"] for each in dev["authorities"]]
    assert authorities["dev"] != authorities["two"]
    assert not relayed["none"]
    assert not orders["none"].leaves
    assert authorities["none"] is None
    assert "PRIVATE KEY" not in json.dumps([dev, two])
    for path in world.paths.data.rglob("*"):
        if path.is_file() and path.parent.name != "secrets":
            with path.open("rb") as opened:  # writable layers are nearly all holes
                parts = data_extents(opened.fileno(), path.stat().st_size)
                assert all(VALUE.encode() not in os.pread(opened.fileno(), end - at, at) for at, end in parts), path
    file = world.instance("dev") / "secrets.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_placeholder_stays(world: World) -> None:
    """Over restarts of the shed and of the server; not in a copy of the shed's folder under another name."""
    async with world.manager() as manager:
        keep(manager, "api-key")
        await create(manager, "dev", secrets=["api-key"])
        record = manager.catalog.record("dev")
        before = manager.terms.secrets.environment(record)
        (world.paths.instances / "copy").mkdir()
        shutil.copy(world.instance("dev") / "secrets.json", world.instance("copy"))
        copy = replace(record, name="copy", created_at="2026-01-01T00:00:00Z")
        assert manager.terms.secrets.environment(copy) != before
        assert manager.terms.secrets.authority(copy) != manager.terms.secrets.authority(record)
    async with world.manager() as manager:
        assert manager.terms.secrets.environment(manager.catalog.record("dev")) == before


async def test_a_running_shed_is_given_secrets_and_loses_them(world: World) -> None:
    """Its commands know of it from then on, and its record does."""
    async with world.manager() as manager:
        keep(manager, "one", "two")
        await create(manager, "dev", secrets=["one"])
        assert await manager.changes.change_secrets("dev", ["two", "two"], []) == (["one", "two"], True)
        assert await manager.changes.change_secrets("dev", [], ["one", "three"]) == (["two"], True)
        assert await manager.changes.change_secrets("dev", [], ["two"]) == ([], True)
        assert manager.catalog.record("dev").secrets is None
    variables = [set(request["variables"]) for request in told(world, "dev")]
    assert variables == [{"ONE"}, {"ONE", "TWO"}, {"TWO"}, set()]
    assert len(told(world, "dev")[-1]["authorities"]) == len(told(world, "dev")[0]["authorities"]) - 1


async def test_a_rule_about_requests_takes_an_authority(world: World) -> None:
    """TLS is opened for it, so the guest trusts the shed's own from when the rule holds until it does not any more."""
    async with world.manager() as manager:
        manager.egress.profiles.set("mine", {"rules": [{"allow": "a.example.com"}]})
        await create(manager, "dev", egress=["mine"])
        manager.egress.profiles.set("mine", {"rules": [{"allow": "a.example.com", "methods": ["GET"]}]})
        await manager.changes.profile_changed("mine")
        orders = manager.terms.orders(manager.catalog.record("dev"))
        await manager.changes.set_profiles("dev", ["internet"])
        await manager.changes.set_profiles("dev", ["offline"])
        assert manager.terms.orders(manager.catalog.record("dev")).authority is None
    assert orders.authority is not None
    assert [leaf.name for leaf in orders.leaves] == ["a.example.com"]
    before, limited, after = (request["authorities"] for request in told(world, "dev"))
    assert before == after
    assert [each["pem"] for each in limited] == [*(each["pem"] for each in before), orders.authority.certificate]


async def test_an_agent_of_an_earlier_version_is_told_of(tmp_path: Path) -> None:
    """It cannot do that while it runs: who changes something hears so."""
    world = World(tmp_path, "old").prepare()
    try:
        async with world.manager() as manager:
            keep(manager, "one")
            await create(manager, "dev")
            assert await manager.changes.change_secrets("dev", ["one"], []) == (["one"], False)
    finally:
        world.kill_machines()


async def test_what_a_shed_cannot_have_is_refused_before_anything_is_made(world: World) -> None:
    """A secret that there is not; two with one variable."""
    async with world.manager() as manager:
        keep(manager, "one")
        keep(manager, "two", variable="ONE")
        with pytest.raises(NotFoundError, match="no secret 'three'"):
            await create(manager, "dev", secrets=["one", "three"])
        with pytest.raises(ConflictError, match="both called ONE"):
            await create(manager, "dev", secrets=["one", "two"])
        assert not world.instance("dev").exists()
        await create(manager, "dev", secrets=["one"])
        with pytest.raises(ConflictError, match="both called ONE"):
            await manager.changes.change_secrets("dev", ["two"], [])
        assert manager.catalog.record("dev").secrets == ["one"]


async def test_a_value_that_cannot_be_had_is_left_out_and_told(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The shed starts all the same; the relay learns of the value when it can be had."""
    async with world.manager() as manager:
        keep(manager, "one")
        manager.terms.secrets.store.set("two", {"hosts": ["a.example.com"], "from_file": str(tmp_path / "later")})
        with caplog.at_level(logging.WARNING):
            await create(manager, "dev", secrets=["one", "two"])
            record = manager.catalog.record("dev")
            assert [secret.name for secret in manager.terms.secrets.for_relay(record)] == ["one"]
        assert "the value of secret two cannot be had" in caplog.text
        assert len(manager.terms.secrets.problems(record)) == 1
        assert not manager.terms.secrets.have_changed(record)
        (tmp_path / "later").write_text(VALUE)
        assert manager.terms.secrets.have_changed(record)
        assert len(manager.terms.orders(record).secrets) == 2
        assert not manager.terms.secrets.have_changed(record)
        assert manager.terms.secrets.problems(record) == []


async def test_a_deleted_shed_leaves_nothing(world: World) -> None:
    """Its authority goes with it; one of the same name gets another."""
    async with world.manager() as manager:
        keep(manager, "one")
        await create(manager, "dev", secrets=["one"])
        before = manager.terms.secrets.authority(manager.catalog.record("dev"))
        await manager.delete("dev", force=True, progress=Progress())
        assert not world.instance("dev").exists()
        await create(manager, "dev", secrets=["one"])
        assert manager.terms.secrets.authority(manager.catalog.record("dev")) != before


async def test_the_configuration_says_variables_of_all_sheds(world: World) -> None:
    """Secrets win over them."""
    world.with_settings(guest_environment={"PIP_INDEX_URL": "https://m/simple", "ONE": "x"})
    async with world.manager() as manager:
        keep(manager, "one")
        await create(manager, "dev", secrets=["one"])
        placeholder = manager.terms.secrets.environment(manager.catalog.record("dev"))["ONE"]
    assert told(world, "dev")[0]["variables"] == {"PIP_INDEX_URL": "https://m/simple", "ONE": placeholder}


async def test_a_record_without_secrets_is_as_it_always_was(world: World) -> None:
    """So is one that an earlier version wrote."""
    async with world.manager() as manager:
        await create(manager, "dev", secrets=[])
    assert "secrets" not in json.loads((world.instance("dev") / metadata.METADATA).read_text())
    assert metadata.load(world.instance("dev")).secrets is None
