"""What an agent waits for: `shed mcp` up to the first answer of a tool, and one command by its tool `exec`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Sample, command, compare, show
from benchmarks.world import SHED, shed, world

_HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}


class Agent:
    """A client of `shed mcp` that does nothing but write lines and read them."""

    def __init__(self, *words: str | Path) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([SHED, "mcp", *words], stdin=pipe, stdout=pipe)
        self._number = 0
        self._ask("initialize", _HELLO)

    def call(self, tool: str, **arguments: object) -> str:
        """Return what a tool says; an error ends the benchmark."""
        result = self._ask("tools/call", {"name": tool, "arguments": arguments})["result"]
        text = str(result["content"][0]["text"])
        if result["isError"]:
            sys.exit(f"{tool}: {text}")
        return text

    def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        """Leave, and wait until it has cleaned up."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _first_answer() -> Sample:
    began = time.perf_counter()
    agent = Agent()
    agent.call("list")
    took = time.perf_counter() - began
    agent.end()
    return Sample(took)


def main() -> None:
    """Compare the first with `python3 -c pass`, the second with a whole `shed exec` in the same shed."""
    with world():
        first = compare(_first_answer, command([sys.executable, "-c", "pass"]), runs=15)
        show("shed mcp", "start to the first answer of a tool", "python3 -c pass", first)
        agent = Agent("--shed", "bench-agent")
        shed("create", "bench-agent", "--image", "base")

        def execute() -> Sample:
            began = time.perf_counter()
            agent.call("exec", command="true")
            return Sample(time.perf_counter() - began)

        whole = command([SHED, "exec", "-T", "-n", "bench-agent", "--", "true"])
        show("exec", "by MCP", "shed exec NAME -- true", compare(execute, whole, runs=30, warmup=3))
        agent.end()
