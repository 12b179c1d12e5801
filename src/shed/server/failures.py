"""What a client is told of a failure: a `ShedError` as it is, a bug only by the number under which the log has it."""

from __future__ import annotations

import logging
import secrets

from shed.errors import ShedError, of_os_error

log = logging.getLogger(__name__)


def explain(error: Exception) -> ShedError:
    """Return what to tell the client of `error`; anything but a `ShedError` is logged with its traceback."""
    if isinstance(error, ShedError):
        return error
    if isinstance(error, OSError) and (told := of_os_error(error)):
        log.warning("%s", told, exc_info=error)
        return told
    number = secrets.token_hex(4)
    log.error("internal error %s", number, exc_info=error)
    return ShedError(
        f"internal error {number}", hint="this is a bug in shed; the server's log has the details under that number"
    )
