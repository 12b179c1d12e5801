"""Writes `shed.client.sync` from `shed.client.aio`: the SDK and its requests are written once, with await.

``make sdk`` runs it, and a test compares.  What the two flavours do in ways of their own (connections, threads,
processes) is in `driver` and `process` of both packages, with the same names.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parents[1] / "src/shed/client"
MODULES = ("requests", "attached", "access", "network", "prebuilds", "secrets", "snapshots", "api", "shed", "client")
HEADER = "# Generated from shed/client/aio/{name}.py: change that one, and run `make sdk`.\n"
RULES = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\bshed\.client\.aio\b", "shed.client.sync"),
)
_RUFF = (sys.executable, "-m", "ruff")


def generated(name: str) -> str:
    """Return what the module `name` of `shed.client.sync` must be.  Raises `CalledProcessError` without ruff."""
    text = (CLIENT / f"aio/{name}.py").read_text()
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    text = HEADER.format(name=name) + text
    path = str(CLIENT / f"sync/{name}.py")
    for words in (("check", "--select", "I", "--fix", "--quiet"), ("format", "--quiet")):
        command = [*_RUFF, *words, "--stdin-filename", path, "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


if __name__ == "__main__":
    for module in MODULES:
        (CLIENT / f"sync/{module}.py").write_text(generated(module))
