"""Talking to the server of this machine from another process of its own: one request, one answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any

from shed.errors import UnavailableError

_TIMEOUT = 5.0
"""Seconds for a server that is well to say who it is."""


def ask(path: Path, method: str, target: str) -> dict[str, Any]:
    """Return what the server at the Unix socket `path` answers.

    Raises `UnavailableError`: SERVER_NOT_RUNNING when nothing listens, SERVER_SILENT when what listens cannot be
    reached or does not answer as a server.
    """
    connection = http.client.HTTPConnection("localhost")
    with contextlib.closing(connection):
        try:
            connection.sock = _connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            hint = "shed starts it when it needs one"
            raise UnavailableError(f"no server listens at {path}", code="SERVER_NOT_RUNNING", hint=hint) from None
        except OSError as error:
            why = error.strerror or str(error)
            raise UnavailableError(
                f"cannot reach what listens at {path}: {why}", code="SERVER_SILENT", hint="check who owns it"
            ) from None
        try:
            connection.request(method, target)
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _silent(path, error) from None
    if not isinstance(answer, dict):
        raise _silent(path, ValueError("it does not speak as one"))
    return answer


def _connect(path: Path) -> socket.socket:
    """Connect through the folder's descriptor: the path itself may be longer than a socket address can be."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(_TIMEOUT)
    try:
        client.connect(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        client.close()
        raise
    finally:
        os.close(folder)
    return client


def _silent(path: Path, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"what listens at {path} does not answer as a server: {error}", code="SERVER_SILENT", hint="see its log"
    )
