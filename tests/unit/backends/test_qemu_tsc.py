"""How fast the time stamp counter runs."""

import mmap
import re
from pathlib import Path

import pytest

from shed.backends.qemu import tsc


def test_it_is_what_the_processor_is_said_to_have() -> None:
    """Within what a processor's speed may differ from its counter's; two measurements agree far better than they are
    rounded.
    """
    (first, second) = (ticks / seconds for ticks, seconds in (tsc._measure(), tsc._measure()))
    assert abs(first / second - 1) < 0.001
    found = tsc.khz()
    assert found is not None
    assert abs(found - first / 1000) <= tsc._STEP * 0.6
    said = re.search(r"cpu MHz\s*: (\d+)", Path("/proc/cpuinfo").read_text())
    assert said is None or 0.4 < found / 1000 / int(said[1]) < 2.5


def test_where_memory_may_not_be_executed_it_is_not_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The guests then use another clock."""

    def refuse(*_args: object, **_options: object) -> mmap.mmap:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mmap.mmap", refuse)
    assert tsc.khz.__wrapped__() is None
    assert "Permission denied" in caplog.text
