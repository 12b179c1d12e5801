"""What the agent puts off until a command needs it."""

import pytest

from shed.guest.state import State


def test_an_outfit_is_made_once_before_the_first_command() -> None:
    """Whoever comes first makes it: a command, or the timer."""
    state, made = State(), []

    def make() -> dict[str, str]:
        made.append(1)
        return {"A": "1"}

    assert state.outfit() == {}
    state.equip_later(make)
    assert made == []
    assert state.outfit() == {"A": "1"}
    state.equip()
    assert state.outfit() == {"A": "1"}
    assert made == [1]
    state.equip_later(lambda: {"A": "2"})
    state.equip()
    assert state.outfit() == {"A": "2"}


def test_an_outfit_that_cannot_be_made_leaves_the_one_before() -> None:
    """And no command fails for it."""
    state = State()
    state.equip_later(lambda: {"A": "1"})
    state.equip()

    def fail() -> dict[str, str]:
        raise OSError("no space")

    state.equip_later(fail)
    with pytest.raises(OSError, match="no space"):
        state.equip()
    assert state.outfit() == {"A": "1"}
