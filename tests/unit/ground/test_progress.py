"""Phases and their timings."""

from shed.progress import BytesEvent, Event, PhaseEvent, Progress, WarningEvent
from shed.version import release_tag


def test_phases_are_timed_merged_and_shown_when_they_have_words() -> None:
    """A silent phase is timed but not shown; the same phase twice is one timing."""
    seen: list[Event] = []
    progress = Progress(seen.append)
    progress.phase("image", "resolving")
    progress.phase("vm")
    progress.phase("image")
    progress.bytes("layer", 1, 2)
    progress.warn("careful")
    timings = progress.finish()
    assert list(timings) == ["setup", "image", "vm"]
    assert all(value >= 0 for value in timings.values())
    assert seen == [PhaseEvent("image", "resolving"), BytesEvent("layer", 1, 2), WarningEvent("careful")]


def test_release_tags_have_a_v_and_dev_builds_have_none() -> None:
    """0.5.4 and v0.5.4 are one release; anything else is not."""
    assert release_tag("0.5.4") == release_tag("v0.5.4") == "v0.5.4"
    assert [release_tag(v) for v in ("0.5.3.dev1", "0.5", "0.5.x", "0.5.2-dirty", "")] == [None] * 5
