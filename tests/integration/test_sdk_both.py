"""The two flavours of the SDK do the same: each test runs with both, and says everything once."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shed
from shed.api import server, sheds
from shed.api.images import Image
from shed.errors import ConflictError, DataError, NotFoundError, ShedError, UnavailableError
from shed.progress import PhaseEvent
from support.servers.fake_server import fake_server
from support.servers.scripted_server import Conversation, Script, ScriptedServer


class Flavour:
    """One of the two: what is called is `do`ne, what is a block is `enter`ed, what is iterated is `all` of it."""

    def __init__(self, *, asynchronous: bool) -> None:
        self._runner = asyncio.Runner() if asynchronous else None

    def client(self, url: str, **options: Any) -> Any:
        """Return a client."""
        return shed.Client(url, **options) if self._runner is None else shed.AsyncClient(url, **options)

    def do(self, value: Any) -> Any:
        """Return the result of a call."""
        if not inspect.isawaitable(value):
            return value
        assert self._runner is not None

        async def wait() -> Any:
            return await asyncio.wait_for(value, 60)

        return self._runner.run(wait())

    @contextlib.contextmanager
    def enter(self, block: Any) -> Iterator[Any]:
        """Enter a block, and leave it."""
        if self._runner is None:
            with block as value:
                yield value
            return
        value = self.do(block.__aenter__())
        try:
            yield value
        finally:
            self.do(block.__aexit__(None, None, None))

    def all(self, items: Any) -> list[Any]:
        """Return all that is iterated."""
        if self._runner is None:
            return list(items)

        async def collect() -> list[Any]:
            return [item async for item in items]

        return list(self.do(collect()))

    def close(self) -> None:
        """End it."""
        if self._runner is not None:
            self._runner.close()


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """One of the two."""
    made = Flavour(asynchronous=request.param == "async")
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with fake VMs."""
    root = tmp_path_factory.mktemp("server")
    with fake_server(root):
        yield f"unix://{root}/run/shed.sock"


@pytest.fixture
def one(flavour: Flavour, url: str) -> Iterator[Any]:
    """A running shed."""
    with flavour.enter(flavour.do(flavour.client(url).create())) as made:
        yield made


@pytest.mark.parametrize("how", ["bytes", "text", "file", "pipe", "nothing"])
def test_standard_input(flavour: Flavour, one: Any, how: str) -> None:
    """Bytes, text, an open file from where it stands, a pipe up to its end, or nothing at all."""
    with tempfile.TemporaryFile() as file:
        file.write(b"notall of it")
        file.seek(3)
        reading, writing = os.pipe()
        os.write(writing, b"all of it")
        os.close(writing)
        with open(reading, "rb") as pipe:
            given = {"bytes": b"all of it", "text": "all of it", "file": file, "pipe": pipe, "nothing": None}[how]
            result = flavour.do(one.exec("cat", stdin=given))
    assert result.stdout == (b"" if how == "nothing" else b"all of it")


def test_a_pipe_that_nobody_closes_does_not_outlast_the_command(flavour: Flavour, one: Any) -> None:
    """The command decides when it is over."""
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        assert flavour.do(one.exec("exit 3", stdin=pipe)).exit_code == 3
    os.close(writing)


def test_a_large_exchange(flavour: Flavour, one: Any) -> None:
    """More than all windows and buffers, both ways at once."""
    data = os.urandom(3_000_000)
    result = flavour.do(one.exec("tee /dev/stderr", stdin=data))
    assert result.stdout == result.stderr == data


def test_a_command_that_does_not_start(flavour: Flavour, one: Any) -> None:
    """Is the same error wherever it is asked for."""
    with pytest.raises(shed.CommandError) as caught:
        flavour.do(one.exec(["/no/such/program"]))
    assert (caught.value.code, caught.value.result.exit_code) == ("EXEC_FAILED", 127)
    with flavour.enter(flavour.do(one.popen(["/no/such/program"]))) as process:
        with pytest.raises(shed.CommandError) as again:
            flavour.do(process.wait())
    assert (again.value.code, str(again.value), again.value.result.command) == (
        "EXEC_FAILED",
        str(caught.value),
        ("/no/such/program",),
    )


def test_a_command_that_takes_too_long(flavour: Flavour, one: Any) -> None:
    """It is killed, and what it said is there."""
    with pytest.raises(shed.CommandTimeoutError) as caught:
        flavour.do(one.exec("echo begun; exec sleep 1000", timeout=0.5))
    assert (caught.value.code, caught.value.result.stdout, caught.value.result.exit_code) == (
        "COMMAND_TIMEOUT",
        b"begun\n",
        137,
    )


def test_a_process(flavour: Flavour, one: Any) -> None:
    """Questions and answers, its end, and what a signal does."""
    with flavour.enter(flavour.do(one.popen("read a; echo $a; echo err >&2; trap 'exit 9' TERM; read b; exit 5"))) as p:
        flavour.do(p.stdin.write(b"question\n"))
        assert flavour.do(p.stdout.readline()) == b"question\n"
        assert flavour.do(p.stderr.readline()) == b"err\n"
        with pytest.raises(TimeoutError):
            flavour.do(p.wait(0.05))
        flavour.do(p.stdin.close())
        assert flavour.all(p.stdout) == []
        assert flavour.do(p.wait()) == 5
        assert flavour.do(p.wait(1)) == 5
        p.signal(15)
    with flavour.enter(flavour.do(one.popen("echo ready; exec sleep 1000"))) as p:
        assert flavour.do(p.stdout.read(6)) == b"ready\n"
        p.signal(15)
        assert flavour.do(p.wait()) == 128 + 15
        flavour.do(p.close())
        flavour.do(p.close())


def test_merged_outputs(flavour: Flavour, one: Any) -> None:
    """Arrive in their order, as one."""
    with flavour.enter(flavour.do(one.popen("echo 1; echo 2 >&2; echo 3", merge=True))) as process:
        assert process.stderr is None
        assert sorted(flavour.all(process.stdout)) == [b"1\n", b"2\n", b"3\n"]
        assert flavour.do(process.wait()) == 0


def test_input_for_a_command_that_has_ended(flavour: Flavour, one: Any) -> None:
    """Breaks, as a pipe does."""
    with flavour.enter(flavour.do(one.popen("exit 0"))) as process:
        assert flavour.do(process.wait()) == 0
        with pytest.raises(BrokenPipeError):
            for _ in range(100):
                flavour.do(process.stdin.write(b"x" * 65536))


def test_results_are_of_the_contract(flavour: Flavour, url: str, one: Any) -> None:
    """Typed objects, also in lists."""
    client = flavour.client(url)
    info = flavour.do(client.info())
    assert isinstance(info, server.Info)
    assert (one.info.status, type(one.info)) == ("running", sheds.Shed)
    assert flavour.do(client.images()) == []
    for ask in (client.image, client.image_history, client.remove_image, client.verify, client.trust):
        with pytest.raises(NotFoundError):
            flavour.do(ask("none"))
    with pytest.raises(NotFoundError):
        flavour.do(client.tag("none", "other"))
    with pytest.raises(NotFoundError):
        flavour.do(client.push("none", "127.0.0.1:1/x"))
    with pytest.raises(shed.ShedError):
        flavour.do(client.pull("127.0.0.1:1/x:y", insecure=True))
    with pytest.raises(DataError, match="needs it"):  # the image of a fake VM is in no store
        flavour.do(client.prune_images(dry_run=True))
    assert isinstance(flavour.do(client.usage()), server.Usage)
    assert flavour.do(client.prune(["logs"], dry_run=True)).dry_run
    assert flavour.do(client.sessions()) == []
    assert flavour.do(one.health()).ok
    (port,) = flavour.do(one.change_ports(publish=["7"], host_ports=["5432:15432"])).published
    assert (port.address, port.shed_port, port.open) == ("localhost", 7, True)
    assert [each.shed_port for each in flavour.do(one.ports()).host_ports] == [15432]
    assert flavour.do(one.change_ports(unpublish=[port.port], no_host_ports=[5432])).published == []
    assert one.name in {each.name for each in flavour.do(client.list())}
    events: list[Any] = []
    flavour.do(one.stop(on_event=events.append))
    flavour.do(one.start(on_event=events.append))
    assert one.status == "running"
    assert any(isinstance(event, PhaseEvent) for event in events)
    with pytest.raises(ConflictError) as caught:
        flavour.do(one.start())
    assert caught.value.code == "SHED_ALREADY_RUNNING"


def test_keys_and_tokens(flavour: Flavour, url: str) -> None:
    """They come, are listed, and go."""
    client = flavour.client(url)
    token, secret = flavour.do(client.create_token("ci", right="read", expires_in=3600))
    assert (token.name, token.right, secret.startswith("shed_")) == ("ci", "read", True)
    assert [each.name for each in flavour.do(client.tokens())] == ["ci"]
    flavour.do(client.revoke_token("ci"))
    assert flavour.do(client.tokens()) == []
    with pytest.raises(NotFoundError):
        flavour.do(client.revoke_token("ci"))
    assert flavour.do(client.ssh_keys()) == []


def test_a_log_is_followed_until_the_shed_is_gone(flavour: Flavour, url: str) -> None:
    """What was said, what is said now, and then the end."""
    one = flavour.do(flavour.client(url).create())
    assert "booted" in flavour.do(one.logs())
    assert flavour.do(one.logs(tail=0)) == ""
    other = shed.Client(url).get(one.name)
    follower = one.follow_logs()
    step = follower.__next__ if hasattr(follower, "__next__") else follower.__anext__
    assert b"booted" in flavour.do(step())
    other.delete()
    flavour.all(follower)


def leaving(times: int, answer: bytes) -> tuple[Script, list[str]]:
    """Return a script of a server that hangs up so often, and then answers; and the requests that it got."""
    requests: list[str] = []

    def script(talk: Conversation) -> None:
        requests.append(talk.request)
        if len(requests) > times:
            talk.answer(200, answer)

    return script, requests


def test_a_server_that_leaves(flavour: Flavour, serve: Callable[[Script], ScriptedServer]) -> None:
    """A question is asked again, once: of the next server.  What changes something is not."""
    script, requests = leaving(1, b'{"sheds": [], "warnings": []}')
    with serve(script) as there:
        assert flavour.do(flavour.client(there.url).list()) == []
    assert requests == ["GET /api/sheds"] * 2
    Path(there.url.removeprefix("unix://")).unlink()
    script, requests = leaving(9, b"")
    with serve(script) as there:
        client = flavour.client(there.url)
        with pytest.raises(UnavailableError, match="left without an answer"):
            flavour.do(client.list())
        with pytest.raises(UnavailableError, match="left without an answer"):
            flavour.do(client.add_ssh_key("x"))
    assert requests == ["GET /api/sheds", "GET /api/sheds", "POST /api/ssh-keys"]


@pytest.mark.parametrize("answer", [b'{"sheds": [{"name": 7}]}', b'{"sheds": [[]]}'])
def test_an_answer_of_another_shape(flavour: Flavour, serve: Callable[[Script], ScriptedServer], answer: bytes) -> None:
    """One error that says what does not fit, or a shed without a name; never another exception."""
    script, _ = leaving(0, answer)
    with serve(script) as there, pytest.raises(shed.ShedError) as caught:
        flavour.do(flavour.client(there.url).list())
    assert not isinstance(caught.value, msgspec.ValidationError)


def test_images_are_objects(flavour: Flavour, serve: Callable[[Script], ScriptedServer]) -> None:
    """With what an older server does not say left empty, and what a newer one says left out."""
    script, _ = leaving(0, b'{"images": [{"name": "base", "size_bytes": 7, "bootable": true, "news": 1}]}')
    with serve(script) as there:
        (found,) = flavour.do(flavour.client(there.url).images())
    assert found == Image(name="base", size_bytes=7, bootable=True)


def test_a_token_of_ones_own(flavour: Flavour) -> None:
    """It is shown to the server, unless there is none."""
    assert flavour.client("http://127.0.0.1:1", token="shed_x").address.token == "shed_x"
    assert flavour.client("http://127.0.0.1:1").address.token is None


def test_prebuilds(flavour: Flavour, url: str) -> None:
    """A shed goes on from what was made ready, with its settings."""
    client, name = flavour.client(url), "ready"
    made = flavour.do(client.create_prebuild(name, ["true"], limit=60.0, env={"A": "1"}))
    assert (made.name, made.status, made.commands) == (name, "ready", ["true"])
    with flavour.enter(flavour.do(client.create(prebuild=name))) as child:
        assert child.info.env == ["A"]
    assert flavour.do(client.build_prebuild(name)).snapshot != made.snapshot
    assert name in {each.name for each in flavour.do(client.prebuilds())}
    flavour.do(client.remove_prebuild(name))
    with pytest.raises(NotFoundError):
        flavour.do(client.create(prebuild=name))


def test_a_checkpoint(flavour: Flavour, url: str, one: Any) -> None:
    """The shed goes back to it as often as that is wanted; nothing stays of it, unless it has a name."""
    client, name = flavour.client(url), one.name

    def snapshots() -> list[str]:
        return sorted(each.name for each in flavour.do(client.snapshots()) if each.source_shed == name)

    with flavour.enter(one.checkpoint()) as checkpoint:
        assert snapshots() == [checkpoint.snapshot.name]
        for _ in range(2):
            flavour.do(checkpoint.rollback())
            assert (one.status, one.info.boot) == ("running", "warm")
        assert snapshots() == [checkpoint.snapshot.name]
        flavour.do(checkpoint.rollback(keep=True))
        (kept,) = set(snapshots()) - {checkpoint.snapshot.name}
    assert snapshots() == [kept]
    with flavour.enter(one.checkpoint(f"{name}.good")):
        pass
    assert snapshots() == [kept, f"{name}.good"]
    with flavour.enter(one.checkpoint()) as checkpoint:  # somebody else removes it
        flavour.do(client.remove_snapshot(checkpoint.snapshot.name))
    for each in snapshots():
        flavour.do(client.remove_snapshot(each))


def test_forks(flavour: Flavour, url: str, one: Any) -> None:
    """All or none; they are gone with their block."""
    client = flavour.client(url)

    def names() -> set[str]:
        return {each.name for each in flavour.do(client.list())}

    before = names()
    with flavour.enter(flavour.do(one.fork(3))) as forks:
        assert names() - before == {fork.name for fork in forks}
        assert [flavour.do(fork.exec("true")).ok for fork in forks] == [True] * 3
        flavour.do(forks[0].delete())
    assert names() == before
    (fork,) = flavour.do(one.fork(name=f"{one.name}-x"))
    assert fork.name == f"{one.name}-x"
    with pytest.raises(ConflictError) as caught:
        flavour.do(one.fork(name=fork.name))
    assert caught.value.code == "SHED_ALREADY_EXISTS"
    flavour.do(fork.delete())
    assert names() == before


def test_forks_of_which_one_fails(flavour: Flavour, serve: Callable[[Script], ScriptedServer]) -> None:
    """The others are deleted, and its error is told."""
    answers = {
        "GET /api/sheds/dev": b'{"name": "dev"}',
        "POST /api/sheds/dev/fork": b'{"forks": [{"name": "a-1", "shed": {"name": "a-1"}}, '
        b'{"name": "a-2", "code": "SHED_START_ENDED", "message": "too little", "hint": "wait"}]}',
        "DELETE /api/sheds/a-1?force=true": b"{}",
    }
    requests: list[str] = []

    def script(talk: Conversation) -> None:
        requests.append(talk.request)
        talk.answer(200, answers[talk.request])

    with serve(script) as there:
        parent = flavour.do(flavour.client(there.url).get("dev"))
        with pytest.raises(ConflictError, match="too little"):
            flavour.do(parent.fork(2, name="a"))
    assert requests == list(answers)


def test_a_shed_that_is_kept_awake(flavour: Flavour, one: Any) -> None:
    """For a block, with the reason, which is shown; a suspended one goes on for it."""
    flavour.do(one.suspend())
    with flavour.enter(one.awake("a review", seconds=60)):
        (lease,) = flavour.do(one.refresh()).info.awake
        assert (one.status, lease.reason) == ("running", "a review")
    assert flavour.do(one.refresh()).info.awake == []
    with flavour.enter(one.awake()):
        flavour.do(one._api.release_awake(one.name))  # somebody else


def test_a_command_in_a_shed_of_its_own(flavour: Flavour, tmp_path: Path) -> None:
    """The shed is gone when the command has ended, also when it took too long or failed."""
    with fake_server(tmp_path):
        runs(flavour, flavour.client(f"unix://{tmp_path}/run/shed.sock"))


def runs(flavour: Flavour, client: Any) -> None:
    """Run commands which end in each way."""
    done = flavour.do(client.run("read a; echo $a; exit 3", stdin="x\n", egress=["offline"]))
    assert (done.exit_code, done.text) == (3, "x\n")
    with pytest.raises(shed.CommandError):
        flavour.do(client.run(["false"], check=True))
    with pytest.raises(shed.CommandTimeoutError):
        flavour.do(client.run("sleep 100", limit=0.5))
    with pytest.raises(ShedError, match="no image"):
        flavour.do(client.run("true", image="none"))
    assert flavour.do(client.list()) == []
