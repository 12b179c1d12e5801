"""Waiting for something that another process or thread brings about.

A wait that fails says what it waited for and what it saw last: of ``wait_until(lambda: shed.status == "stopped")`` the
text of the condition, and the value of ``shed.status``.
"""

from __future__ import annotations

import ast
import asyncio
import linecache
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SECONDS = 200.0
"""For a busy machine that emulates its processors; nothing waits so long unless it fails."""
_PAUSE = 0.01


def wait_until(
    condition: Callable[[], T], *, what: str = "", seen: Callable[[], object] | None = None, seconds: float = SECONDS
) -> T:
    """Call `condition` until what it returns is true, and return that.

    Raises `AssertionError` after `seconds`, which tells `what` was waited for and what was `seen` last; both are read
    off a condition that does not come with them.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(_told(condition, value, what, seen, seconds))
        time.sleep(_PAUSE)
    return value


async def until(
    condition: Callable[[], T], *, what: str = "", seen: Callable[[], object] | None = None, seconds: float = SECONDS
) -> T:
    """As `wait_until`, for coroutines: the event loop goes on meanwhile."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(_told(condition, value, what, seen, seconds))
        await asyncio.sleep(_PAUSE)
    return value


def _told(
    condition: Callable[[], object], value: object, what: str, seen: Callable[[], object] | None, seconds: float
) -> str:
    text = _text(condition)
    last = f"{seen()}" if seen is not None else _parts(condition, text) or f"{value!r}"
    return f"not within {seconds:g} s: {what or text or condition}\nlast seen: {last}"


def _text(condition: Callable[[], object]) -> str:
    """Return the expression of a lambda as it is written; of other functions their names."""
    code = getattr(condition, "__code__", None)
    if code is None or code.co_name != "<lambda>":
        return str(getattr(condition, "__qualname__", ""))
    places = [place for place in code.co_positions() if place[3]]  # the first and the last instruction have none
    if not places:
        return ""
    (line, start), (last, end) = min((a, c) for a, _, c, _ in places), max((b, d) for _, b, _, d in places)
    lines = [linecache.getline(code.co_filename, number).encode() for number in range(line, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    return " ".join(part.decode().strip() for part in lines)


def _parts(condition: Callable[[], object], text: str) -> str:
    """Return the operands of a lambda's comparisons with their values now; empty when it has none, or they fail."""
    try:
        operands = [
            operand
            for node in ast.walk(ast.parse(text, mode="eval"))
            if isinstance(node, ast.Compare | ast.UnaryOp)
            for operand in ([node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.operand])
            if not isinstance(operand, ast.Constant | ast.Compare)
        ]
        free = dict(zip(condition.__code__.co_freevars, condition.__closure__ or (), strict=True))
        names = {name: cell.cell_contents for name, cell in free.items()}
        return "".join(
            f"\n  {ast.unparse(operand)} = {eval(ast.unparse(operand), {**condition.__globals__, **names})!r}"
            for operand in operands
        )
    except Exception:  # noqa: BLE001  this only explains a failure, and must not hide it
        return ""
