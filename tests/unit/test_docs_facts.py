"""What the documentation quotes from the program is there: numbers of the protocol, texts of errors, their codes."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from shed.guest import protocol

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs/reference/protocol.md").read_text()
SYMPTOMS = re.findall(r"^\| (.+?) \| .+ \| .+ \|$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
ELSEWHERE = {
    "Could not resolve hostname shed-dev",
    "Permission denied (publickey)",
    "Operation not permitted",
    "fatal: detected dubious ownership",
    "Unable to create '…/index.lock': File exists",
    "Connection refused",
}
"""What other programs say: ssh and git."""


@cache
def texts() -> str:
    """Return all texts of the program's source, as far as they are constant."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "src/shed").rglob("*.py")]
    nodes = (node for tree in trees for node in ast.walk(tree))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def table(section: str) -> list[list[str]]:
    """Return the cells of the first table of a section of the protocol's page, without its head."""
    text = PROTOCOL.split(f"\n## {section}\n")[1]
    rows = re.search(r"^\|(?:.*\n\|)+.*", text, re.MULTILINE)
    assert rows, section
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[0].splitlines()[2:]]


def test_exec_frames_have_their_numbers() -> None:
    """All that the module knows, and no other."""
    assert [(int(row[0], 16), row[1]) for row in table("Exec frames")] == [
        (getattr(protocol, name), name)
        for name in (
            "EXEC_REQUEST",
            "RESIZE",
            "SIGNAL",
            "EXIT_CODE",
            "DATA_FRAME",
            "STDIN_EOF",
            "STDERR",
            "STDIN_TAKEN",
            "STDOUT_CLOSED",
        )
    ]
    assert f"{protocol.STDIN_WINDOW} bytes" in PROTOCOL
    assert f"{protocol.MAX_PAYLOAD >> 20} MiB at most" in PROTOCOL


def test_mux_frames_have_their_numbers() -> None:
    """And the sizes of the multiplexer are the right ones."""
    names = ("HELLO", "ATTACH", "OPEN", "DATA", "CREDIT", "EOF", "RESET")
    assert [(int(row[0]), row[1]) for row in table("Mux frames")] == [(getattr(protocol, name), name) for name in names]
    assert f"{protocol.MAX_MUX_PAYLOAD} bytes at most" in PROTOCOL
    assert f"may send {protocol.INITIAL_CREDIT} bytes" in PROTOCOL
    assert protocol.MAGIC == b"\x00\xff" + b"shed-mux" + b"\xff\x00\x0d\x0a\x1a\x0a\x01\x02"
    assert '`00 ff "shed-mux" ff 00 0d 0a 1a 0a 01 02`' in PROTOCOL


def test_ports_and_control_requests_are_all_there() -> None:
    """By number and name."""
    ports = {name: value for name, value in vars(protocol).items() if name.startswith("PORT_")}
    assert {row[1]: int(row[0]) for row in table("Stream ports")} == ports
    control = (ROOT / "src/shed/guest/control.py").read_text()
    assert {row[0] for row in table("Control requests")} == set(
        re.findall(r'^            "(\w+)": self\._\w+,', control, re.MULTILINE)
    )
    assert f"(`{protocol.CONTROL_REQUEST:#x}`" in PROTOCOL
    assert f"(`{protocol.CONTROL_RESPONSE:#x}`)" in PROTOCOL


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_a_symptom_is_what_the_program_says(symptom: str) -> None:
    """Each part between placeholders (…) is in its source; codes are codes that it raises."""
    for quoted in re.findall(r"`([^`]+)`", symptom):
        if quoted in ELSEWHERE or quoted.startswith(("shed ", ".git", "git ", "/workspace", "$", "*")):
            continue
        for part in re.split(r"…", quoted):
            said = part.strip() in texts()
            assert said, f"the program nowhere says {part.strip()!r}"
