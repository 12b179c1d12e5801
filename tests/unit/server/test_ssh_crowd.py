"""How many connections the SSH port has, and who has to leave for whom."""

from collections.abc import Callable
from typing import cast

import pytest

from shed.server.ssh import limits
from shed.server.ssh.connection import Connection
from shed.server.ssh.limits import DROP_ALL, DROP_FROM, MOST_CONNECTIONS, MOST_OF_PEER, MOST_STRANGERS, Crowd


class Line:
    """Stands for a connection: what a `Crowd` asks of one is to be hung up on."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        """Hang up."""
        self.aborted = True


def many(crowd: Crowd, peer: str, number: int) -> list[Line]:
    """Return connections of a peer that were let in, of `number` that came."""
    entered = []
    for _ in range(number):
        if crowd.room(peer):
            entered.append(Line())
            crowd.enter(cast(Connection, entered[-1]), peer)
    return entered


@pytest.mark.parametrize(("chance", "most"), [(lambda: 0.0, DROP_FROM), (lambda: 0.999, DROP_ALL)])
def test_drops_become_more_likely(chance: Callable[[], float], most: int) -> None:
    """From none at all to all of one peer, while another one is let in."""
    crowd = Crowd(chance)
    assert len(many(crowd, "guest", DROP_ALL + 50)) == most
    assert len(many(crowd, "user", 5)) == 5


def test_the_one_with_most_makes_way() -> None:
    """When there are too many strangers in all, and not who comes alone."""
    crowd = Crowd(lambda: 1.0)
    first = many(crowd, "a", DROP_ALL)
    many(crowd, "b", DROP_ALL - 1)
    many(crowd, "c", 1)
    assert len(crowd.everybody()) == MOST_STRANGERS
    assert len(many(crowd, "d", 3)) == 3
    assert [line.aborted for line in first[:4]] == [True, True, False, False]  # from then on b has as many
    assert len(crowd.everybody()) == MOST_STRANGERS


def test_known_clients_stay() -> None:
    """They are not hung up on for others; a peer has so many, and all together."""
    crowd = Crowd(lambda: 1.0)

    def log_in(peer: str, number: int) -> list[Line]:
        lines = []
        for _ in range(number):
            for line in many(crowd, peer, 1):
                crowd.known(cast(Connection, line))
                lines.append(line)
        return lines

    kept = log_in("a", MOST_OF_PEER + 10)
    assert len(kept) == MOST_OF_PEER
    kept += log_in("b", MOST_OF_PEER)
    assert len(kept) == MOST_CONNECTIONS
    assert many(crowd, "c", 1) == []
    crowd.leave(cast(Connection, kept[0]))
    assert len(many(crowd, "c", 2)) == 1
    assert not any(line.aborted for line in kept)


def test_the_limits_fit_together() -> None:
    """One peer cannot take up what all have."""
    assert DROP_FROM < DROP_ALL < MOST_STRANGERS < MOST_OF_PEER < MOST_CONNECTIONS
    assert limits.MOST_TRIES == 6
