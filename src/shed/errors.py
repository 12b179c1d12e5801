"""The one exception tree.

Every failure a user can meet is a `ShedError`: a stable `code` for programs, one sentence for people, and a `hint` that
says what to do next.  Anything else that reaches the top is a bug and is reported as one, but for what the operating
system refuses (`of_os_error`).
"""

from __future__ import annotations

import errno


class ShedError(Exception):
    """A failure that is explained to the user.

    `code` is the API's error code, `http_status` what the server answers with, `exit_code` what the command line exits
    with. A subclass sets defaults; a raise may name a more specific `code`.
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


class UnauthorizedError(ShedError):
    """The server does not know who asks."""

    code = "UNAUTHORIZED"
    http_status = 401


class ForbiddenError(ShedError):
    """The server knows who asks, and they may not."""

    code = "FORBIDDEN"
    http_status = 403


class DataError(ShedError):
    """Bytes that are not what they claim to be: a corrupt blob, a bad manifest, a hostile archive."""

    code = "INVALID_DATA"
    http_status = 422


class StorageError(ShedError):
    """The disk refused: no space, no permission, an I/O error."""

    code = "STORAGE"
    http_status = 507


_CHECK_OWNER = "check who owns it"
REFUSALS = {
    errno.ENOSPC: "free some space, for example: shed delete NAME",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: _CHECK_OWNER,
    errno.EPERM: _CHECK_OWNER,
    errno.EIO: "the disk reports an error: check the kernel log",
    errno.ENOTDIR: "a file is where a folder should be: move it away, or choose another place",
    errno.EISDIR: "a folder is where a file should be: move it away, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EFBIG: "the file system cannot hold a file of that size",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "there is too little memory: end something else, and try again",
}
"""What the operating system may refuse through no fault of the program, by error number, and what to do then."""


def of_os_error(error: OSError) -> StorageError | None:
    """Return what to tell of a refusal that nobody on the way had a better sentence for; None when `error` looks like a bug."""
    vanished = isinstance(error, FileNotFoundError) and error.filename is not None
    hint = (
        "it was there a moment ago, or its folder cannot exist: check the path"
        if vanished
        else REFUSALS.get(error.errno or 0)
    )
    if hint is None:
        return None
    what = f"cannot use {error.filename}" if error.filename is not None else "the operating system refused"
    return StorageError(f"{what}: {error.strerror}", hint=hint)


class BackendError(ShedError):
    """A virtual machine could not be started, reached, or stopped."""

    code = "BACKEND_ERROR"
    http_status = 500


class ConnectError(BackendError):
    """A TCP port in a running shed could not be reached."""

    code = "CONNECT_FAILED"
    http_status = 502
