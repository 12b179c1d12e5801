"""What a check finds, and what it looks at."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from shed.backends.qemu.backend import PROGRAM
from shed.config.paths import Paths
from shed.config.server import Settings, load_settings
from shed.errors import ShedError, of_os_error
from shed.images.service import Images
from shed.oci.store import LayoutStore


class Status(enum.StrEnum):
    """How well it stands with what was looked at."""

    PASS = "PASS"  # noqa: S105  no password
    WARN = "WARN"
    """It works, or is not needed; somebody should know."""
    FAIL = "FAIL"
    """Something that shed does will not work."""


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the report.  `detail` is a sentence, `hint` what to do about it; empty when there is nothing to do."""

    name: str
    status: Status
    detail: str
    hint: str = ""

    @classmethod
    def of(cls, name: str, error: Exception, status: Status = Status.FAIL) -> Result:
        """Return what `error` tells, as a row; what nobody expected is told as a bug."""
        told = of_os_error(error) if isinstance(error, OSError) else error
        if isinstance(told, ShedError):
            return cls(name, status, told.message, told.hint or "")
        what = f"the check itself failed: {type(error).__name__}: {error}"
        return cls(name, Status.FAIL, what, "this is a bug in shed: please report it")


@dataclass(frozen=True, slots=True)
class Host:
    """What is looked at: the folders, the configuration (None: the one a server would find) and QEMU's name or path."""

    paths: Paths
    config: Path | None = None
    program: str = PROGRAM

    @property
    def settings(self) -> Settings:
        """The configuration; the defaults while it cannot be used, which its own check tells."""
        try:
            return load_settings(self.config)
        except ShedError:
            return Settings()

    @property
    def store(self) -> LayoutStore:
        """The image store."""
        return Images(self.paths.images).store


Check = Callable[[Host], Iterable[Result]]
"""Looks at one thing.  What it raises becomes a row, too: a `ShedError` as it is, anything else as a bug."""
