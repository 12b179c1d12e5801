"""What a check of this host finds: a row of ``shed-server doctor``'s report."""

from __future__ import annotations

import enum
import pwd
from dataclasses import dataclass

from shed.errors import ShedError, of_os_error


class Status(enum.StrEnum):
    """How well it stands with what was looked at."""

    PASS = "PASS"  # noqa: S105  no password
    WARN = "WARN"
    """It works, or is not needed; somebody should know."""
    FAIL = "FAIL"
    """Something that shed does will not work."""


@dataclass(frozen=True, slots=True)
class Result:
    """One row.  `detail` is a sentence, `hint` what to do about it; empty when there is nothing to do."""

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


def user(number: int) -> str:
    """Return the name of the user `number`."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
