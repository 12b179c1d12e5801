"""Fuzzing with hypothesis: a few hundred examples, the same ones each time.

`SHED_FUZZ_SECONDS` asks for a longer, random run.  A failure of one names its seed, and `SHED_FUZZ_SEED` repeats it.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

log = logging.getLogger(__name__)
SECONDS = float(os.environ.get("SHED_FUZZ_SECONDS", "0"))


def repeat(run: Callable[..., None], *arguments: Any) -> None:
    """Call the hypothesis test `run` once, or until the seconds asked for have passed, each time with another seed."""
    if not SECONDS:
        run(*arguments)
        return
    end = time.monotonic() + SECONDS
    number = int(os.environ.get("SHED_FUZZ_SEED", random.SystemRandom().getrandbits(32)))
    while time.monotonic() < end:
        try:
            seed(number)(run)(*arguments)
        except BaseException as error:
            error.add_note(f"to repeat it: SHED_FUZZ_SEED={number}")
            raise
        number += 1


def fuzz(check: Callable[[T], None], strategy: SearchStrategy[T], *, examples: int = 300) -> None:
    """Run `check` on what `strategy` draws, `examples` times, and again and again until the seconds asked for have
    passed.
    """
    count = 0

    def counted(drawn: T) -> None:
        nonlocal count
        count += 1
        check(drawn)

    run = settings(
        max_examples=examples,
        deadline=None,
        derandomize=not SECONDS,
        database=None,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(given(strategy)(counted))
    started = time.monotonic()
    repeat(run)
    log.info("%d examples in %.0f s", count, time.monotonic() - started)
    assert count >= examples / 3
