"""The one exception tree.

Every failure a user can meet is a `ShedError`: a stable `code` for programs, one sentence for people, and a `hint` that says
what to do next.  Anything else that reaches the top is a bug and is reported as one.
"""

from __future__ import annotations


class ShedError(Exception):
    """A failure that is explained to the user.

    `code` is the API's error code, `http_status` what the server answers with, `exit_code` what the command line exits with.
    A subclass sets defaults; a raise may name a more specific `code`.
    """

    code = "INTERNAL"
    http_status = 500
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class UsageError(ShedError):
    """The request itself is wrong: a bad name, flag, or combination."""

    code = "INVALID_REQUEST"
    http_status = 400
    exit_code = 2


class NotFoundError(ShedError):
    """The thing named does not exist."""

    code = "NOT_FOUND"
    http_status = 404


class ConflictError(ShedError):
    """The thing exists but its state does not allow the request."""

    code = "CONFLICT"
    http_status = 409


class UnavailableError(ShedError):
    """Something needed is not there now: a server, a tool, a VM that does not answer."""

    code = "UNAVAILABLE"
    http_status = 503


class DataError(ShedError):
    """Bytes that are not what they claim to be: a corrupt blob, a bad manifest, a hostile archive."""

    code = "INVALID_DATA"
    http_status = 422


class StorageError(ShedError):
    """The disk refused: no space, no permission, an I/O error."""

    code = "STORAGE"
    http_status = 507


class BackendError(ShedError):
    """A virtual machine could not be started, reached, or stopped."""

    code = "BACKEND_ERROR"
    http_status = 500
