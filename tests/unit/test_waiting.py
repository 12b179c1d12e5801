"""The wait that tests share tells what it waited for."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from support.waiting import until, wait_until

BEGIN = "vm"


def test_the_value_that_came_is_returned() -> None:
    """It is asked again until it is true."""
    numbers = itertools.count()
    assert wait_until(lambda: [found] if (found := next(numbers)) > 2 else []) == [3]


def test_a_failure_tells_the_condition_and_the_last_values() -> None:
    """Both sides of a comparison, whatever the condition refers to: locals, globals."""
    shed = SimpleNamespace(status="running")
    with pytest.raises(AssertionError) as caught:
        wait_until(lambda: shed.status == "stopped" and BEGIN in shed.status, seconds=0)
    told = str(caught.value)
    assert 'not within 0 s: shed.status == "stopped" and BEGIN in shed.status' in told
    assert "shed.status = 'running'" in told
    assert "BEGIN = 'vm'" in told


def test_a_condition_over_several_lines() -> None:
    """It is told in one."""
    found: list[int] = []
    with pytest.raises(AssertionError, match=r"found == \[ 1, 2, \]\nlast seen: \n  found = \[\]"):
        wait_until(
            lambda: found == [
                1,
                2,
            ],
            seconds=0,
        )  # fmt: skip


def test_a_failure_of_a_named_condition() -> None:
    """Its name and what it returned; or the words that the caller has."""

    def nothing() -> list[str]:
        return []

    with pytest.raises(AssertionError, match=r"nothing\nlast seen: \[\]"):
        wait_until(nothing, seconds=0)
    with pytest.raises(AssertionError, match=r"the end\nlast seen: the console"):
        wait_until(nothing, what="the end", seen=lambda: "the console", seconds=0)


def test_what_cannot_be_looked_at_hides_no_failure() -> None:
    """Operands that fail are left out."""
    answers: list[bool] = [False]
    with pytest.raises(AssertionError, match="last seen: False"):
        wait_until(lambda: answers.pop() is None, seconds=-1)


async def test_the_waiting_of_coroutines() -> None:
    """The same, with the same words."""
    numbers = itertools.count()
    assert await until(lambda: next(numbers) > 2)
    here = True
    with pytest.raises(AssertionError, match=r"not within 0 s: not here\nlast seen: \n  here = True"):
        await until(lambda: not here, seconds=0)
