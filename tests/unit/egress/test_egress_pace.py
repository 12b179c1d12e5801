"""How fast one shed may open connections: many at once, and then so many in a second."""

from __future__ import annotations

from shed.egress.relay.pace import Pace


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        """Return what it shows."""
        return self.now


def test_as_many_as_it_likes_and_then_in_turn() -> None:
    """Nobody waits who opens few; who opens many waits ever longer, and no longer than that takes."""
    pace = Pace(burst=10, per_second=2, clock=Clock())
    assert [pace.wait() for _ in range(10)] == [0.0] * 10
    assert [pace.wait() for _ in range(4)] == [0.5, 1.0, 1.5, 2.0]


def test_time_brings_it_back() -> None:
    """Never more than there was at first."""
    clock = Clock()
    pace = Pace(burst=3, per_second=2, clock=clock)
    for _ in range(3):
        pace.wait()
    clock.now += 1
    assert [pace.wait() for _ in range(3)] == [0.0, 0.0, 0.5]
    clock.now += 1000
    assert [pace.wait() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
