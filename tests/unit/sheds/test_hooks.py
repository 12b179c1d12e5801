"""What a project has run in its shed: how its file is read, when each hook runs, and what is told when one fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shed.api.making import CreateShed
from shed.errors import NotFoundError, UnavailableError
from shed.progress import Event, OutputEvent, PhaseEvent, Progress, WarningEvent
from shed.sheds import hooks, metadata, setup, workspace
from shed.sheds.hooks import Provisioning
from support.servers.world import World
from support.waiting import until


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is the workspace of all sheds."""
    place = tmp_path / "project"
    (place / ".shed").mkdir(parents=True)
    monkeypatch.setattr(workspace, "guest_owner", lambda *_: (0, 0))
    monkeypatch.setattr(hooks, "TARGET", str(place))
    monkeypatch.setattr(hooks, "LOGS", str(tmp_path / "logs"))
    monkeypatch.setattr(hooks, "STATE", str(tmp_path / "state"))
    return place


def says(project: Path, **members: str) -> None:
    """Write the project's file, with these hooks."""
    lines = [f"  {name}: {hook!r}\n" for name, hook in members.items()]
    (project / hooks.FILE).write_text("hooks:\n" + "".join(lines) + "env: {COLOUR: green}\n")


def request(project: Path, **options: object) -> CreateShed:
    """A shed with the project's folder."""
    return CreateShed(name="dev", image="base", local_dir=str(project), **options)  # type: ignore[arg-type]


def said(project: Path) -> list[str]:
    """Return what hooks have written."""
    path = project / "said"
    return path.read_text().split() if path.exists() else []


async def test_the_life_of_hooks(world: World, project: Path) -> None:
    """Install runs once, startup after each start, shutdown before a stop; commands have the project's variables."""
    (project / "install.sh").write_text("#!/bin/sh\necho install >>said; echo 'some words'; echo more >&2\n")
    says(project, install="install.sh", startup="echo startup >>said", shutdown="echo shutdown >>said")
    told: list[Event] = []
    async with world.manager() as manager:
        made = await manager.create(request(project), Progress(told.append))
        assert "failed" not in made
        assert said(project) == ["install", "startup"]
        assert [event.line for event in told if isinstance(event, OutputEvent)] == ["some words", "more"]
        assert "hook install: install.sh" in [event.message for event in told if isinstance(event, PhaseEvent)]
        assert Path(hooks.LOGS, "install.log").read_text() == "some words\nmore\n"
        record = metadata.load(world.instance("dev"))
        assert (await manager.terms.equip(record)).variables["COLOUR"] == "green"
        await manager.stop("dev", Progress())
        assert said(project)[2:] == ["shutdown"]
        await manager.start("dev", Progress())
        assert await manager.setup.started("dev", Progress()) == []
        assert said(project)[3:] == ["startup"]
        await manager.setup.provision("dev", Progress(), again=False, limit=None)
        assert said(project)[4:] == ["startup"]
        await manager.setup.provision("dev", Progress(), again=True, limit=None)
        assert said(project)[5:] == ["install", "startup"]
        await manager.delete("dev", force=True, progress=Progress())
        assert "shutdown" not in said(project)[3:]  # a delete does not wait for anything in the shed


async def test_a_hook_that_fails(world: World, project: Path) -> None:
    """It is named with its command, exit code, last words and log; the others do not run, and it is tried again."""
    says(project, install="echo no luck; exit 7", startup="echo startup >>said")
    async with world.manager() as manager:
        (sentence,) = (await manager.create(request(project), Progress()))["failed"]
        for part in ("hook install", "'echo no luck; exit 7'", "ended with 7", "no luck", f"{hooks.LOGS}/install.log"):
            assert part in sentence
        assert said(project) == []
        says(project, install="true", startup="echo startup >>said")
        assert await manager.setup.provision("dev", Progress(), again=False, limit=None) == []
        assert said(project) == ["startup"]


async def test_a_hook_has_a_limit(world: World, project: Path) -> None:
    """One that does not end is told."""
    says(project, install="sleep 60")
    async with world.manager() as manager:
        await manager.create(request(project, no_provision=True), Progress())
        (sentence,) = await manager.setup.provision("dev", Progress(), again=False, limit=0.3)
        assert "did not end within 0.3 s" in sentence


async def test_services_that_a_hook_leaves_behind(world: World, project: Path) -> None:
    """They keep what they write to, and nobody waits for them."""
    says(project, startup="(while [ ! -e go ]; do sleep 0.1; done; echo late >>said; echo words) & echo begun")
    async with world.manager() as manager:
        assert "failed" not in await manager.create(request(project), Progress())
        assert said(project) == []
        (project / "go").touch()
        log = Path(hooks.LOGS, "startup.log")
        await until(lambda: log.read_text() == "begun\nwords\n", what="the service has written", seen=log.read_text)


async def test_without_hooks(world: World, project: Path) -> None:
    """--no-provision holds for later starts, too; without a file, and in a stopped shed, nothing can be run."""
    says(project, install="echo install >>said", startup="echo startup >>said", shutdown="echo shutdown >>said")
    async with world.manager() as manager:
        await manager.create(request(project, no_provision=True), Progress())
        await manager.stop("dev", Progress())
        await manager.start("dev", Progress())
        await manager.setup.started("dev", Progress())
        assert said(project) == []
        (project / hooks.FILE).unlink()
        with pytest.raises(NotFoundError, match=r"no \.shed/provision.yaml"):
            await manager.setup.provision("dev", Progress(), again=False, limit=None)
        await manager.stop("dev", Progress())
        with pytest.raises(UnavailableError):
            await manager.setup.provision("dev", Progress(), again=False, limit=None)


async def test_a_start_does_not_wait_for_its_hook_but_a_client_may(world: World, project: Path) -> None:
    """A command starts the shed and gets in at once; what the hook does is told when it fails."""
    says(project, startup="true")
    async with world.manager() as manager:
        await manager.create(request(project), Progress())
        await manager.stop("dev", Progress())
        says(project, startup="while [ ! -e go ]; do sleep 0.1; done; exit 3")
        stream = await manager.guests.open_exec("dev")
        stream.close()
        (project / "go").touch()
        (sentence,) = await manager.setup.started("dev", Progress())
        assert "hook startup" in sentence
        assert "ended with 3" in sentence
        await until(lambda: "dev" not in manager.setup._starting, what="it has ended")


async def test_a_shed_that_is_deleted_meanwhile(world: World, project: Path) -> None:
    """Its hook ends with it, and whoever makes it is told that it is gone."""
    says(project, install="touch begun; sleep 60")
    async with world.manager() as manager:
        making = asyncio.create_task(manager.create(request(project), Progress()))
        await until((project / "begun").exists, what="the hook runs")
        await manager.delete("dev", force=True, progress=Progress())
        with pytest.raises(NotFoundError):
            await making
        assert world.traces() == set()


async def test_a_hook_that_talks_without_end(world: World, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of it is bounded; its log has all."""
    monkeypatch.setattr(hooks, "_MOST_TOLD", 10_000)
    says(project, install="seq 1 40000; printf 'the end'")
    told: list[Event] = []
    async with world.manager() as manager:
        assert "failed" not in await manager.create(request(project), Progress(told.append))
    assert 0 < sum(isinstance(event, OutputEvent) for event in told) < 40_000
    assert Path(hooks.LOGS, "install.log").read_text().endswith("40000\nthe end")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[a]", "does not hold keys"),
        (b"hooks: x", "hooks does not hold"),
        (b"hooks: {install: [a]}", "install is not a text"),
        (b"hooks: {install: ''}", "install is empty"),
        (b"env: {A: [b]}", "A is not a text"),
        (b"env: {'A B': c}", "'A B' is not the name"),
        (b"env: {A: \"a\\0b\"}", "A is not a text"),
        (b"a: {b: *c}", "not YAML"),
        (b'env: {A: "\\ud800"}', "A is not Unicode"),
        (b'a: "\\UFFFFFFFF"', "not YAML"),
        (b"\xff\xfe\xff", "not YAML"),
        (b"[" * 10_000, "more than 200 lists"), (b"[" * 100, "not YAML"),
        (b"a: " + b"x" * 40_000, "more than 16 KiB"),
        (b"env: {" + b", ".join(b"A%d: b" % n for n in range(101)) + b"}", "more than 100"),
        (b"a: &a {x: y}\nb: &b {<<: [*a, *a]}\nenv: {<<: *b}", "<< is not a text"),
        (b"- &a [x]\n- &b [*a,*a,*a,*a,*a,*a,*a,*a]\n- &c [*b,*b,*b,*b,*b,*b,*b,*b]\n", "does not hold keys"),
    ],
)  # fmt: skip
def test_files_that_are_wrong(text: bytes, says: str) -> None:
    """Whatever a guest has in it is one sentence."""
    with pytest.raises(ValueError, match=says):
        Provisioning.parse(hooks.FILE, text)


def test_what_is_not_known_is_named() -> None:
    """Scalars are taken as they are written; keys that mean nothing are named, and change nothing."""
    found = Provisioning.parse(
        hooks.FILE, b"version: 2\nhooks: {install: a.sh, teardown: b}\nenv: {DEBUG: 1, ON: yes}\n"
    )
    assert (found.hooks, found.env) == ({"install": {"install": "a.sh"}}, {"DEBUG": "1", "ON": "yes"})
    assert found.notes == ("version means nothing here", "hooks.teardown means nothing here")
    assert Provisioning.parse(hooks.FILE, b"") == Provisioning()


async def test_a_server_that_ends_meanwhile(world: World, project: Path) -> None:
    """A hook that runs after a start does not keep a server from ending."""
    says(project, startup="true")
    async with world.manager() as manager:
        await manager.create(request(project), Progress())
        await manager.stop("dev", Progress())
        says(project, startup="sleep 60")
        await manager.start("dev", Progress())
        await asyncio.sleep(0)
        assert "dev" in manager.setup._starting
    assert setup.LIMIT > 60


async def test_a_devcontainer(world: World, project: Path) -> None:
    """Its commands run in their order, each once or at each start; what is not done is told.  Our own file wins."""
    (project / ".devcontainer.json").write_text(
        '{"onCreateCommand": "echo create >>said", "postCreateCommand": ["sh", "-c", "echo post >>said"],\n'
        '"postStartCommand": {"a": "echo a >>said", "b": "echo b >>said"}, "containerEnv": {"COLOUR": "red"},\n'
        '"features": {}, /* none */ }'
    )
    told: list[Event] = []
    async with world.manager() as manager:
        assert "failed" not in await manager.create(request(project), Progress(told.append))
        assert said(project) == ["create", "post", "a", "b"]
        assert any(
            "features: an image is made of it" in event.message for event in told if isinstance(event, WarningEvent)
        )
        await manager.stop("dev", Progress())
        await manager.start("dev", Progress())
        await until(lambda: said(project)[4:] == ["a", "b"])
        (project / ".devcontainer.json").write_text(
            '{"onCreateCommand": "false", "postCreateCommand": "echo x >>said"}'
        )
        failed = await manager.setup.provision("dev", Progress(), again=True, limit=None)
        assert "hook onCreateCommand, 'false', ended with 1" in failed[0]
        says(project, install="echo ours >>said")
        assert await manager.setup.provision("dev", Progress(), again=False, limit=None) == []
    assert said(project)[6:] == ["ours"]
