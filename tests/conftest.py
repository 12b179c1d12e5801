"""Fixtures that every test may use."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from support.layers.tars import close_sources

pytest_plugins = ["support.images.kit", "support.tools.engine"]

# Whoever runs the tests may ignore these (nohup does, and a shell for what it runs in the background), and what is
# ignored stays so in every program that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = ("test_two_writers", "test_packages", "test_lifecycle", "test_variant_archives", "test_variants")
"""Files that take minutes, in the order in which they begin: one that began last would run alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put `LONG` first.  Skip, and say so, what needs root when we are not."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    for item in items:
        if os.geteuid() and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


# How long an example takes says how busy the machine is.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _sources_are_closed() -> Iterator[None]:
    yield
    close_sources()
