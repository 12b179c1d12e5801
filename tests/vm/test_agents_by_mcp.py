"""An agent in a real shed, by `shed mcp` and the official client alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.servers.mcp_client import Agent, agent
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(170)]
SUM = "#!/bin/sh\necho $(($1 - $2))\n"
TEST = '#!/bin/sh\n[ "$(./sum.sh 2 3)" = 5 ] || { echo "2 + 3 is $(./sum.sh 2 3)"; exit 1; }\necho ok\n'


@pytest.fixture
def machine(way: str, base_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the image base."""
    copy_store(base_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way=way)
    yield machine
    machine.end()


async def repository(someone: Agent) -> None:
    """Have a repository with a failing test in the workspace."""
    await someone.do("write", path="sum.sh", content=SUM)
    await someone.do("write", path="test.sh", content=TEST)
    who = "-c user.name=x -c user.email=x@example.org"
    await someone.do("exec", command=f"chmod +x *.sh && git init -q && git add . && git {who} commit -qm first")


async def eventually(someone: Agent, tool: str, arguments: dict[str, str], *, has: str) -> None:
    """Call a tool until its answer has a text."""
    async with asyncio.timeout(60):
        while has not in await someone.do(tool, **arguments):
            await asyncio.sleep(0.1)


async def test_an_agent_fixes_a_failing_test(machine: Machine, tmp_path: Path) -> None:
    """It looks, breaks everything, goes back, fixes it, shows the patch and hands over a file; then nothing is left."""
    ours = tmp_path / "ours"
    ours.mkdir()
    words = ("--allow-image", "base", "--local-dir", str(ours))
    async with agent(machine.environment, *words) as someone:
        name = await someone.create(name="fix")
        await repository(someone)
        assert "2 + 3 is -1" in (said := await someone.do("exec", command="./test.sh"))
        assert said.startswith("[exit code 1, ")
        assert said.split("\n")[0].endswith("in /workspace]")
        await someone.do("exec", command="while sleep 0.2; do date >>/tmp/alive; done", background=True)
        point = (await someone.do("checkpoint", note="before")).split()[-1]
        await someone.do("exec", command="sudo rm -rf /workspace/* /usr")
        assert "exit code 127" in await someone.do("exec", command="git status")
        await someone.do("rollback", checkpoint=point)
        assert await someone.do("find", text="1 - .2|[$]1 -") == "./sum.sh:2:echo $(($1 - $2))"
        await someone.do("edit", path="sum.sh", old="$1 - $2", new="$1 + $2")
        assert (await someone.do("exec", command="./test.sh")).endswith("\nok\n")
        patch = await someone.do("diff")
        assert patch.endswith("-echo $(($1 - $2))\n+echo $(($1 + $2))\n")
        (fork,) = [word for word in (await someone.do("fork")).split() if word.startswith("fork-")]
        assert "ok" in await someone.do("exec", shed=fork, command="./test.sh")
        await someone.do("delete", shed=fork)
        await someone.do("exec", command="mkdir -p out/.git; cp sum.sh out; ln -s /etc link; seq 100000 >out/numbers")
        await someone.do("copy", direction="download", local="sum.sh", path="sum.sh")
        for path in ("out", "link"):
            await someone.refused("copy", direction="download", local="other", path=path)
        await someone.refused("copy", direction="download", local=".git/hooks/post-checkout", path="sum.sh")
        await someone.do("copy", direction="upload", local="from-sheds/sum.sh", path="again.sh")
        assert (await someone.do("exec", command="sh again.sh 2 3")).endswith("\n5\n")
        await someone.do("exec", command="exec python3 -m http.server 8000", background=True)
        url = await someone.do("ports", port=8000)
        await eventually(someone, "ports", {}, has="8000")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /test.sh HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(TEST.encode())
        writer.close()
        long = await someone.do("exec", command="seq 100000")
        file = long.partition("all of it is in ")[2].split()[0]
        assert (await someone.do("read", path=file, first_line=99_999)).startswith("99999\n100000\n")
        calling = asyncio.create_task(someone.do("exec", command="exec sleep 987"))
        look = {"command": "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o 'sleep 98[7]' || echo none"}
        await eventually(someone, "exec", look, has="sleep 987")
        calling.cancel()
        await eventually(someone, "exec", look, has="none")
        assert "running" in await someone.do("list")
    assert [str(path.relative_to(ours)) for path in ours.rglob("*")] == ["from-sheds", "from-sheds/sum.sh"]
    assert (ours / "from-sheds/sum.sh").read_text() == SUM.replace("-", "+")
    assert name not in machine.shed("list", "--json")
    assert "checkpoint" not in machine.shed("snapshot", "list", "--json")
