"""A scripted registry, and repositories of it that wait for nothing and take nobody's credentials."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.oci.registry.client import Repository
from shed.oci.registry.reference import parse_reference
from support.registries.docker_registry import no_credentials
from support.registries.scripted_registry import Registry, scripted_registry

Connect = Callable[..., Repository]


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of whoever runs the tests is used."""
    no_credentials(monkeypatch, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry."""
    with scripted_registry() as registry:
        yield registry


@pytest.fixture
def waits() -> list[float]:
    """The seconds that were waited, one entry per wait."""
    return []


@pytest.fixture
def connect(registry: Registry, waits: list[float]) -> Iterator[Connect]:
    """Return the repository ``me/app`` of the registry; its connections are closed when the test ends."""
    with contextlib.ExitStack() as stack:
        reference = parse_reference(f"{registry.address}/me/app:v1")

        def make(*, push: bool = False, **options: object) -> Repository:
            return stack.enter_context(Repository(reference, push=push, sleep=waits.append, **options))  # type: ignore[arg-type]

        yield make
