"""Whatever a guest answers to a command, the client ends with an exit code or a `BackendError`, and prints no more than
came.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile

import pytest
from hypothesis import strategies as st

from shed.client import execution
from shed.client.address import parse
from shed.client.execution import Execution
from shed.errors import BackendError
from shed.guest.protocol import DATA_FRAME, EXIT_CODE, STDERR, STDIN_TAKEN, exec_frame
from support.fuzz import fuzz

_PAYLOADS = [
    b'{"code":0}',
    b'{"code":' + b"1" * 5000 + b"}",
    b"[" * 5000,
    b"\0\0\0\1",
    b'{"code":1,"error":"\\ud800"}',
    b'{"code":1e999}',
]


def test_any_exec_stream_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of all kinds, cut anywhere."""
    kinds = st.sampled_from([EXIT_CODE, DATA_FRAME, STDERR, STDIN_TAKEN, 0, 0x7F])
    frames = st.builds(exec_frame, kinds, st.binary(max_size=40) | st.sampled_from(_PAYLOADS))

    def check(said: bytes) -> None:
        ours, theirs = socket.socketpair()
        monkeypatch.setattr(execution, "upgrade", lambda *_, **__: ours)
        with theirs, tempfile.TemporaryFile() as out:
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
            with contextlib.suppress(BackendError), Execution(parse("unix:///none"), "dev", ["true"]) as command:
                assert 0 <= command.run(stdin=None, stdout=out.fileno(), stderr=out.fileno()).code <= 255
            assert out.tell() <= len(said)

    fuzz(check, st.lists(frames | st.binary(max_size=12), max_size=8).map(b"".join))
