"""The one exception tree.

Every failure a user can meet is a `ShedError`: a stable `code` for programs, one sentence for people, and a `hint` that
says what to do next.  Anything else that reaches the top is a bug and is reported as one, but for what the operating
system refuses (`of_os_error`).

`shed.error_codes` has the table of all codes: the class that each belongs to, its HTTP status and its exit code.
"""

from __future__ import annotations

import errno

from shed.error_codes import GROUPS, look_up


class ShedError(Exception):
    """A failure that is explained to the user.

    `code` is the API's error code: that of the class, or a more specific one that the table has for this class or a
    parent of it.  It decides `http_status`, what the server answers with, and `exit_code`, what the command line exits
    with.  A `hint` that is not given is the table's next step; an empty one is none.
    """

    code = "INTERNAL"

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        entry = look_up(self.code)
        assert entry, f"{self.code} is not in the table of error codes"
        assert isinstance(self, KINDS[entry[0]]), f"{self.code} is a code of {entry[0]}, not of {type(self).__name__}"
        self.http_status, self.exit_code = entry[1:3]

    def __str__(self) -> str:
        return self.message

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        """What a traceback shows below the message."""
        step = self.next_step
        return [f"code: {self.code}", *([f"hint: {step}"] if step else [])]

    @property
    def next_step(self) -> str:
        """What to do about it: the hint, else what the table of codes says; may be empty."""
        if self.hint is not None:
            return self.hint
        entry = look_up(self.code)
        return "" if entry is None else entry[4]


class UsageError(ShedError):
    """The request itself is wrong: a bad name, flag, or combination."""

    code = "INVALID_REQUEST"


class NotFoundError(ShedError):
    """The thing named does not exist."""

    code = "NOT_FOUND"


class ConflictError(ShedError):
    """The thing exists but its state does not allow the request."""

    code = "CONFLICT"


class UnavailableError(ShedError):
    """Something needed is not there now: a server, a tool, a VM that does not answer."""

    code = "UNAVAILABLE"


class UnauthorizedError(ShedError):
    """The server does not know who asks."""

    code = "UNAUTHORIZED"


class ForbiddenError(ShedError):
    """The server knows who asks, and they may not."""

    code = "FORBIDDEN"


class DataError(ShedError):
    """Bytes that are not what they claim to be: a corrupt blob, a bad manifest, a hostile archive."""

    code = "INVALID_DATA"


class StorageError(ShedError):
    """The disk refused: no space, no permission, an I/O error."""

    code = "STORAGE"


class BackendError(ShedError):
    """A virtual machine could not be started, reached, or stopped."""

    code = "BACKEND_ERROR"


class ConnectError(BackendError):
    """A TCP port in a running shed could not be reached."""

    code = "CONNECT_FAILED"


class RegistryError(ShedError):
    """A registry refused, or answered what no registry should."""

    code = "REGISTRY_ERROR"


KINDS: dict[str, type[ShedError]] = {
    kind.__name__: kind
    for kind in (
        ShedError,
        UsageError,
        NotFoundError,
        ConflictError,
        UnavailableError,
        UnauthorizedError,
        ForbiddenError,
        DataError,
        StorageError,
        BackendError,
        ConnectError,
        RegistryError,
    )
}
"""The classes that the table names."""


def heard(message: str, *, code: str, status: int = 0, hint: str | None = None) -> ShedError:
    """Return the error that another program told by its `code` and HTTP `status`; 0 when there was none.

    The code decides the class.  The status does for a code that this version does not know.
    """
    entry = look_up(code)
    if entry is not None:
        return KINDS[entry[0]](message, hint=hint, code=code)
    kind = next((group[0] for group in GROUPS if group[1] == status), "ShedError")
    if not status and code.startswith("INVALID_"):  # an event of a server that tells no status
        kind = "UsageError"
    error = KINDS[kind](message, hint=hint)
    error.code, error.http_status = code, status or error.http_status
    return error


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
    """Return the message for a refusal that no other code explained; None when `error` looks like a bug."""
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
