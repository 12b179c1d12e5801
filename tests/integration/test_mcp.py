"""`shed mcp` as agents use it: the real command line, the official client, a real server with fake VMs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from shed.client.sync.api import Api
from support.servers.fake_server import fake_server
from support.servers.mcp_client import Agent, agent
from support.waiting import SECONDS, until

WITHOUT = """
import sys
sys.modules["mcp_types"] = None
from shed.cli.main import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a server with fake VMs."""
    root = tmp_path_factory.mktemp("server")
    with fake_server(root) as found:
        yield found


@pytest.fixture
def api(env: dict[str, str]) -> Api:
    """The same server, as its user has it."""
    return Api(f"unix://{env['SHED_RUNTIME_DIR']}/shed.sock")


@contextlib.asynccontextmanager
async def with_shed(env: dict[str, str]) -> AsyncIterator[Agent]:
    """An agent that has a shed."""
    async with agent(env) as found:
        await found.create(name="web")
        yield found


def traces(env: dict[str, str]) -> list[str]:
    """Return the sheds and snapshots that there are; a client gives a session seconds to delete them."""
    snapshots = Path(env["SHED_DATA_DIR"], "snapshots").glob("[a-z]*")
    return instances(env) + [path.name for path in snapshots]


def instances(env: dict[str, str]) -> list[str]:
    """Return the sheds that there are."""
    return sorted(path.name for path in Path(env["SHED_DATA_DIR"], "instances").iterdir() if path.name[0] != ".")


async def test_a_session_leaves_nothing(env: dict[str, str]) -> None:
    """Sheds, forks and checkpoints go with it; progress is told, and the audit log says who it was."""
    told: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with agent(env) as someone:
        said, failed = await someone.call("create", {"name": "web"}, progress_callback=hear)
        name = said.split()[0]
        assert (failed, name.startswith("web-")) == (False, True)
        await someone.do("checkpoint", note="clean")
        await someone.do("fork", count=2)
        assert len(instances(env)) == 3
        listed = await someone.do("list")
        assert listed.count("running") == 3
        assert "checkpoint-" in listed
    await until(lambda: traces(env) == [], what="nothing is left")
    assert "starting the virtual machine" in told
    records = [json.loads(line) for line in Path(env["SHED_DATA_DIR"], "logs/audit.log").read_text().splitlines()]
    ours = [record for record in records if record.get("shed") == name or record["who"].get("client") == "mcp"]
    assert {"POST /api/sheds", "POST /api/snapshots", "POST /api/sheds/{name}/fork"} <= {
        each["action"] for each in ours
    }
    assert {record["who"].get("client") for record in ours} == {"mcp"}


async def test_a_killed_session_leaves_no_shed(env: dict[str, str]) -> None:
    """The server deletes what was made for a client that is gone."""
    command = [sys.executable, "-m", "shed.cli.main", "mcp"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "create", "arguments": {}}}
        process.stdin.write(json.dumps(call).encode() + b"\n")
        process.stdin.flush()
        assert b" runs: " in await asyncio.to_thread(process.stdout.readline)
        assert len(instances(env)) == 1
        process.send_signal(signal.SIGKILL)
    await until(lambda: instances(env) == [], what="the server deletes the shed")


async def test_what_is_kept_stays(env: dict[str, str], api: Api, tmp_path: Path) -> None:
    """With --keep; and a shed that was given is there before and after, without what the session needed in it."""
    async with agent(env, "--keep") as someone:
        name = await someone.create()
    assert instances(env) == [name]
    assert not api.shed(name).get("expires_at")
    async with agent(env, "--shed", name) as someone:
        assert "was there before" in await someone.do("list")
        await someone.do("exec", command=f"echo 1 >{tmp_path}/made")
        assert "was there before" in await someone.refused("delete", shed=name)
        word = (await someone.do("checkpoint")).rpartition("checkpoint-")[2].split("-")[0]
        outputs = Path(env["SHED_DATA_DIR"], "instances", name, f"shed-mcp-{word}")
        assert outputs.is_dir()
    assert (tmp_path / "made").read_text() == "1\n"
    assert instances(env) == [name]
    await until(lambda: api.snapshots() == [], what="the checkpoint is gone")
    await until(lambda: not outputs.exists(), what="the outputs of its commands are gone")
    api.delete(name, force=True)


async def test_commands(env: dict[str, str], tmp_path: Path) -> None:
    """The folder is kept, output is bounded and named, errors are told, and time runs out."""
    async with with_shed(env) as one:
        said = await one.do("exec", command=f"cd {tmp_path}; exit 3")
        assert said.startswith("[exit code 3, after ")
        assert said.endswith(f" s, in {tmp_path}]\n")
        assert (await one.do("exec", command="pwd; echo '\x1b[31mred\x1b[0m\x07' >&2")).endswith(
            f"{tmp_path}\nred\\x07\n"
        )
        long = await one.do("exec", command="seq 100000")
        assert len(long) < 31_000
        assert (long.count("\n1\n"), long.endswith("\n99999\n100000\n")) == (1, True)
        file = long.partition("all of it is in ")[2].split()[0]
        assert (await one.do("read", path=file, first_line=50_000, lines=1)).startswith("50000\n")
        late = await one.do("exec", command="echo begun; sleep 60", timeout=4)
        assert late.startswith("[killed after 4 s; ")
        assert late.endswith("]\nbegun\n")
        assert await one.refused("exec", command="true", folder="/nowhere") == (
            "/nowhere cannot be entered\nnext: name a folder that is there: find"
        )
        assert f", in {tmp_path}]" in await one.do("exec", command="true")
        assert "more than 0" in await one.refused("exec", command="true", timeout=-1)


async def test_commands_in_the_background(env: dict[str, str]) -> None:
    """Each answer has what is new; a kill ends it; there are not too many."""
    async with with_shed(env) as one:
        assert "command 1 runs" in await one.do(
            "exec", command="echo one; read x </dev/zero; echo two", background=True
        )
        said = ""
        while "one" not in said:
            said = await one.do("process", number=1, wait=0.05)
        assert said.startswith("[running since ")
        assert "one" not in await one.do("process", number=1)
        assert "command 1: running" in await one.do("list")
        assert (await one.do("process", number=1, kill=True)).startswith("[exit code 137")
        assert "no command 7" in await one.refused("process", number=7)
        together = [one.call("exec", {"command": "sleep 60", "background": True}) for _ in range(24)]
        assert [failed for _, failed in await asyncio.gather(*together)].count(False) == 16
        assert "16 commands run already" in await one.refused("exec", command="true")


async def test_a_cancelled_call_kills_its_command(env: dict[str, str], tmp_path: Path) -> None:
    """What the client does not want any more does not go on in the shed."""
    async with with_shed(env) as one:
        command = f"echo $$ >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; sleep 60"
        calling = asyncio.create_task(one.do("exec", command=command))
        await until((tmp_path / "pid").exists, what="the command runs")
        process = Path("/proc", (tmp_path / "pid").read_text().strip())
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        await until(lambda: not process.exists(), what="the command is gone")
        assert "sleep" not in await one.do("list")
        for tool in ("checkpoint", "fork"):  # which the server does all the same: they are the session's
            calling = asyncio.create_task(one.do(tool))
            await asyncio.sleep(0.05)
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            async with asyncio.timeout(SECONDS):
                while f"{tool}-" not in await one.do("list"):
                    await asyncio.sleep(0.05)
    await until(lambda: traces(env) == [], what="nothing is left")


async def test_forks_of_cancelled_calls_count(env: dict[str, str]) -> None:
    """However often a client asks and leaves, there are not more sheds than granted, and all of them end."""
    async with agent(env, "--most-sheds", "3") as one:
        await one.create(name="web")
        source = instances(env)[0]
        for number in range(6):
            calling = asyncio.create_task(one.do("fork", count=2, shed=source))
            await asyncio.sleep(0.05 * number)
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
        async with asyncio.timeout(SECONDS):
            while "fork-" not in await one.do("list"):
                await asyncio.sleep(0.05)
        assert "3 sheds together" in await one.refused("fork", shed=source)
        assert len(instances(env)) == 3
    await until(lambda: traces(env) == [], what="nothing is left")


async def test_files(env: dict[str, str], tmp_path: Path) -> None:
    """They are written whole, read in parts, changed where the text is there once, and found by name and content."""
    async with with_shed(env) as one:
        path = f"{tmp_path}/a/b.sh"
        await one.do("write", path=path, content="one\ntwo\ntwo\n")
        Path(path).chmod(0o750)
        assert await one.do("read", path=path, first_line=2, lines=1) == "two\n\n[1 more lines: first_line=3]"
        assert "2 times" in await one.refused("edit", path=path, old="two", new="2")
        assert "not in" in await one.refused("edit", path=path, old="three", new="3")
        assert "2 places" in await one.do("edit", path=path, old="two", new="zwei\u00e9", all=True)
        assert Path(path).read_text() == "one\nzwei\u00e9\nzwei\u00e9\n"
        assert Path(path).stat().st_mode & 0o777 == 0o750
        await one.do("exec", command=f"cd {tmp_path}/a; ln -s b.sh link; mkdir .git; echo one >.git/x; echo >-n")
        await one.do("exec", command="printf 'a\\r\\nb\\r\\nc' >dos")
        await one.do("edit", path="dos", old="a\nb", new="1\n2\n3")
        assert (tmp_path / "a/dos").read_bytes() == b"1\r\n2\r\n3\r\nc"
        await one.do("exec", command="rm dos")
        odd = "a\u00a0b\u3000c\fd\r\n\te\u202e\x1b\n"
        await one.do("write", path="odd", content=odd)
        assert await one.do("read", path="odd") == odd.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
        await one.do("edit", path="odd", old="\u00a0b\u3000c\fd\r\n", new="")
        assert (tmp_path / "a/odd").read_bytes() == "a\te\u202e\x1b\n".encode()
        assert "more than" in await one.refused("edit", path="odd", old="e", new="x" * (2 << 20))
        await one.do("exec", command="rm odd")
        await one.do("write", path="link", content="1\n")
        assert Path(path).read_text() == "1\n"
        assert sorted((await one.do("find")).split()) == ["./-n", "./b.sh"]
        assert await one.do("find", path=str(tmp_path), name="*.sh", text="^[0-9]$") == f"{path}:1:1"
        assert await one.do("read", path="-n") == "\n"
        assert "is a folder" in await one.refused("read", path=str(tmp_path))
        assert "no ordinary file" in await one.refused("read", path="/dev/zero")
        assert "there is no" in await one.refused("read", path="nothing")
        assert [each.name for each in (tmp_path / "a").glob(".shed*")] == []


async def test_rollback_patch_and_ports(env: dict[str, str], tmp_path: Path) -> None:
    """Only to a checkpoint of the shed; what changed in a repository is a patch; a port has a URL here."""
    async with with_shed(env) as one:
        assert "no checkpoint" in await one.refused("rollback")
        name = (await one.do("checkpoint")).split()[-1]
        assert "no such checkpoint" in await one.refused("rollback", checkpoint="other")
        assert name in await one.do("rollback", checkpoint=name)
        assert "no git repository" in await one.refused("diff", folder=str(tmp_path))
        who = "-c user.name=x -c user.email=x@example.org"
        await one.do(
            "exec",
            command=f"cd {tmp_path}; git init -q; echo 1 >a; git add .; git {who} commit -qm 1; printf '2\\r\\n' >>a",
        )
        patch = await one.do("diff")
        assert patch.endswith("@@ -1 +1,2 @@\n 1\n+2\r\n")
        (tmp_path / "a").write_text("1\n")
        subprocess.run(["git", "apply"], cwd=tmp_path, input=patch.encode(), check=True)
        assert (tmp_path / "a").read_bytes() == b"1\n2\r\n"
        url = await one.do("ports", port=7)
        assert await one.do("ports", port=7) == url
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"echo\n")
        assert await reader.readline() == b"echo\n"
        writer.close()
        assert "nothing was denied" in await one.do("egress")


async def test_copies_stay_in_the_users_folder(env: dict[str, str], tmp_path: Path) -> None:
    """No path leads out of it, no link, and nothing that is there is replaced."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    (ours / "in.txt").write_text("in")
    (tmp_path / "secret").write_text("secret")
    (ours / "way-out").symlink_to(tmp_path)
    async with agent(env, "--local-dir", str(ours)) as someone:
        await someone.create()
        await someone.do("exec", command=f"cd {theirs}")

        async def refused(direction: str, local: str, path: str = "out.txt") -> str:
            return await someone.refused("copy", direction=direction, local=local, path=path)

        for place in ("../secret", "way-out/secret", "/etc/passwd", ".", "a/../..", "way-out"):
            assert "not in the folder" in await refused("upload", place)
        for place in (
            "../secret",
            "way-out/x",
            "/etc/x",
            ".",
            ".envrc",
            ".git/hooks/post-checkout",
            "a/b",
            "mise.toml",
        ):
            assert "next: " in await refused("download", place)
    assert {path.name for path in ours.iterdir()} == {"in.txt", "way-out"}


async def test_snapshots_of_a_given_shed_are_counted(env: dict[str, str], private: str, api: Api) -> None:
    """Each rollback keeps what the user's shed was, and is one of the session's few."""
    async with agent(env, "--shed", private) as someone:
        await someone.do("checkpoint")
        for _ in range(15):
            await someone.do("rollback")
        for tool in ("rollback", "checkpoint"):
            assert "16 checkpoints already" in await someone.refused(tool)
    for each in api.snapshots():
        api.remove_snapshot(each["name"])


@pytest.fixture
def private(api: Api) -> Iterator[str]:
    """A shed of the user's that is no agent's business."""
    api.create("private")
    yield "private"
    api.delete("private", force=True)


async def test_a_hostile_agent_gets_nothing_that_was_not_granted(env: dict[str, str], private: str) -> None:
    """Not another shed by any tool, no image, repository or profile, not more than its share, and no hint of them."""
    async with agent(env, "--most-sheds", "2", "--cpus", "4", "--memory", "5G") as someone:
        tools = {tool.name: tool for tool in (await someone.client.list_tools()).tools}
        assert "copy" not in tools
        assert not {"image", "repo", "prebuild", "profile"} & tools["create"].input_schema["properties"].keys()
        mine = await someone.create()
        needed = {"command": "true", "path": "/etc/passwd", "content": "", "old": "x", "new": "y", "number": 1}
        for name, tool in tools.items():
            takes = tool.input_schema["properties"]
            if "shed" not in takes:
                continue
            asked = {key: needed[key] for key in tool.input_schema.get("required", ()) if key in needed}
            for other in (private, "../private", f"{mine}/../private", "private\n", "no-such-shed"):
                said = await someone.refused(name, **{**asked, "shed": other})
                assert said.startswith(f"this session has no shed {other!r}"), name
        for more in ({"image": "base"}, {"repo": "https://example.org/x"}, {"profile": "internet"}, {"prebuild": "x"}):
            assert "may not use" in await someone.refused("create", **more)
        assert "4 processors together" in await someone.refused("create", cpus=3)
        assert "5120 MiB of memory together" in await someone.refused("create", memory_mb=4096)
        together = await asyncio.gather(*(someone.call("create", {}) for _ in range(3)))
        assert [failed for _, failed in together].count(False) == 1
        assert "2 sheds together" in await someone.refused("fork", shed=mine)
        assert private not in await someone.do("list")
        assert "unknown member" in await someone.refused("create", local_dir="/")
        assert "invalid shed name" in await someone.refused("create", name="x" * 100)
        assert "invalid shed name" in await someone.refused("create", name="../x")
        assert "characters at most" in await someone.refused("exec", shed=mine, command="x" * 200_000)
        assert "match" in await someone.refused("exec", shed=mine, command="a\0b")
    await until(lambda: instances(env) == [private], what="its own sheds are gone")


async def test_what_is_granted_is_offered(env: dict[str, str]) -> None:
    """Images and repositories that the user allows, and no others; the first image is the one by default."""
    words = ("--allow-image", "base", "--allow-repo", "https://example.org/me/", "--allow-profile", "offline")
    async with agent(env, *words) as someone:
        (tool,) = [tool for tool in (await someone.client.list_tools()).tools if tool.name == "create"]
        members = tool.input_schema["properties"]
        assert (members["image"]["enum"], members["profile"]["enum"]) == (["base"], ["offline"])
        assert "https://example.org/me/" in members["repo"]["description"]
        assert "image base" in await someone.do("create", profile="offline")
        assert "profiles: offline" in await someone.do("egress")
        for url in ("https://example.org/you/x", "https://example.org/me/../you", "https://example.org/mean"):
            assert "may not use the repository" in await someone.refused("create", repo=url)


async def test_time_runs_out(env: dict[str, str]) -> None:
    """The session ends, and with it what it has made."""
    command = [sys.executable, "-m", "shed.cli.main", "mcp", "--time", "1.5s"]
    process = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1, stderr=-1, env=env)
    assert process.stdin is not None
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "create", "arguments": {}}}
    process.stdin.write(json.dumps(call).encode() + b"\n")
    await process.wait()
    assert process.returncode == 0
    await until(lambda: instances(env) == [], what="nothing is left")


async def test_a_client_of_the_newer_protocol(env: dict[str, str]) -> None:
    """It asks what there is in place of a handshake, and each request has its version."""
    program = StdioServerParameters(command=sys.executable, args=["-m", "shed.cli.main", "mcp"], env=env)
    async with Client(stdio_client(program)) as client:
        assert client.protocol_version == "2026-07-28"
        assert "exec" in {tool.name for tool in (await client.list_tools()).tools}
        assert not (await client.call_tool("list", {})).is_error


def test_what_is_missing_is_said(env: dict[str, str]) -> None:
    """Without the extra it is one error that says what to install; a person at a terminal is told who starts it."""
    command = [sys.executable, "-c", WITHOUT, "mcp"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: this installation of shed lacks what speaks MCP\nhint: pip install 'shed[mcp]'\n"
    leader, follower = os.openpty()
    command = [sys.executable, "-m", "shed.cli.main", "mcp"]
    done = subprocess.run(command, stdin=follower, capture_output=True, text=True, env=env, check=False)
    os.close(leader)
    os.close(follower)
    assert (done.returncode, "an MCP client starts this" in done.stderr) == (2, True)
