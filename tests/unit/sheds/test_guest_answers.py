"""What a guest answers to the server's own questions: whatever it is, the asker gets one `BackendError`, and nothing
else goes wrong.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from shed.backends import mux
from shed.backends.base import Connection
from shed.errors import BackendError
from shed.guest import protocol
from shed.sheds.agent import control
from shed.sheds.clock import set_clock
from shed.sheds.commands import run as run_command
from shed.sheds.sessions import _parse
from support.fuzz import fuzz
from support.guests.guest_port import run
from support.guests.scripted_guest import ScriptedGuest, read_frame

RESPONSE, OUTPUT, ERRORS, EXIT = protocol.CONTROL_RESPONSE, protocol.DATA_FRAME, protocol.STDERR, protocol.EXIT_CODE


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that this process is slow to play is not hung up on."""
    monkeypatch.setattr(mux, "HELLO_TIMEOUT", 30.0)


def answered(folder: Path, said: list[bytes], ask: Callable[[Connection], Awaitable[None]]) -> None:
    """Have a guest answer each stream that is opened with the next of what is `said`, and `ask` of it."""

    async def work() -> None:
        async with ScriptedGuest(str(folder / "s")) as scripted:
            link, reader, writer = await scripted.link()

            async def guest() -> None:
                left, saying, credit = list(said), b"", 0
                while True:
                    kind, number, payload = await read_frame(reader)
                    if kind == protocol.OPEN:
                        saying, credit = left.pop(0) if left else b"", protocol.INITIAL_CREDIT
                    elif kind == protocol.CREDIT:
                        credit += int.from_bytes(payload, "big")
                    while saying and credit:
                        piece = saying[: min(credit, protocol.MAX_MUX_PAYLOAD)]
                        saying, credit = saying[len(piece) :], credit - len(piece)
                        writer.write(protocol.mux_frame(protocol.DATA, number, piece))
                    if kind in {protocol.OPEN, protocol.CREDIT} and not saying:
                        writer.write(protocol.mux_frame(protocol.EOF, number))

            answering = asyncio.create_task(guest())
            await ask(link)
            assert not answering.done()
            answering.cancel()
            await link.close()

    run(work)


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"\xff",
        b'{"ok":true,"now":NaN}',
        b'{"ok":true,"now":1e400}',
        b'{"ok":true,"now":' + b"9" * 400 + b"}",
        b'{"ok":true,"now":"noon"}',
        b'{"ok":true,"now":1e300}',
        b'{"ok":true,"state":"\\ud800"}',
        b"[" * 20000 + b"]" * 20000,
        b'{"ok":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"ok":true,"x":"' + b"x" * 40_000 + b'"}',
    ],
    ids=range(11),
)
def test_an_answer_that_makes_no_sense(tmp_path: Path, payload: bytes) -> None:
    """A question of the clock's, which everybody's guests are asked in one task, ends with the error that it
    expects.
    """

    async def ask(link: Connection) -> None:
        with pytest.raises(BackendError) as caught:
            await set_clock(link)
        assert caught.value.code == "AGENT_PROTOCOL"
        assert len(caught.value.message) < 500

    answered(tmp_path, [protocol.exec_frame(RESPONSE, payload)], ask)


def test_frames_that_are_no_answer_are_not_taken_for_ever(tmp_path: Path) -> None:
    """Neither many that say nothing, nor one that is long."""

    async def ask(link: Connection) -> None:
        for why in ("65 frames that are no answer", "32768 is the most"):
            with pytest.raises(BackendError, match=why):
                await control(link, "health", wait=60)

    long = protocol.exec_frame(0x7F, bytes(40_000))
    answered(tmp_path, [protocol.exec_frame(0x7F) * 50_000, long], ask)


def test_a_refusal_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    """Its text is one short line without controls, and its code looks like one."""
    said = [
        {"ok": False, "code": "SHED-INIT-03", "error": "a\x1b[2J\nb" + "c" * 5000},
        {"ok": False, "code": "no code\n", "error": 7},
        {"ok": 1, "code": ["A"]},
    ]

    async def ask(link: Connection) -> None:
        for code, beginning in (
            ("SHED-INIT-03", r"a\x1b[2J\nbcc"),
            ("AGENT_ERROR", "7"),
            ("AGENT_ERROR", "the agent refused 'sync'"),
        ):
            with pytest.raises(BackendError) as caught:
                await control(link, "sync", wait=60)
            assert caught.value.code == code
            assert caught.value.message.startswith(beginning)
            assert len(caught.value.message) <= 300

    answered(tmp_path, [protocol.exec_frame(RESPONSE, json.dumps(answer).encode()) for answer in said], ask)


@pytest.mark.parametrize(
    "said",
    [
        protocol.exec_frame(EXIT, b'{"code":"x"}'),
        protocol.exec_frame(EXIT, b'{"code":' + b"1" * 5000 + b"}"),
        protocol.exec_frame(OUTPUT, bytes(1 << 17)) * 9,
        protocol.exec_frame(0x7F, bytes(3 << 20)),
        b"\x04\xff\xff\xff\xff",
    ],
    ids=range(5),
)
def test_a_command_of_the_servers_own_that_ends_in_nonsense(tmp_path: Path, said: bytes) -> None:
    """One error, and no more than a mebibyte is kept."""

    async def ask(link: Connection) -> None:
        with pytest.raises(BackendError) as caught:
            await run_command(await link.open(protocol.PORT_EXEC), ["tmux"], wait=60)
        assert caught.value.code in {"AGENT_PROTOCOL", "STREAM_RESET"}

    answered(tmp_path, [said], ask)


def test_any_answer_at_all(tmp_path: Path) -> None:
    """To a question of control and to a command: a result or a `BackendError`."""
    members = st.sampled_from(["ok", "code", "error", "now", "state"])
    objects = st.dictionaries(members, st.none() | st.booleans() | st.integers() | st.floats() | st.text()).map(
        json.dumps
    )
    payloads = st.binary(max_size=60) | objects.map(str.encode)
    frames = st.builds(protocol.exec_frame, st.sampled_from([RESPONSE, EXIT, OUTPUT, ERRORS, 0, 0x7F]), payloads)

    def check(said: bytes) -> None:
        async def ask(link: Connection) -> None:
            for question in (
                control(link, "health", wait=60),
                set_clock(link),
                run_command(await link.open(protocol.PORT_EXEC), ["tmux"], wait=60),
            ):
                message = ""
                try:
                    await question
                except BackendError as error:
                    message = error.message
                assert len(message) < 600

        answered(tmp_path, [said] * 8, ask)

    fuzz(check, st.lists(frames | st.binary(max_size=20), max_size=5).map(b"".join), examples=150)


def test_any_line_of_tmux_at_all() -> None:
    """A session of bounded numbers and a name without controls, or a `BackendError`."""
    words = st.sampled_from(["0", "1", "1764000000", "9" * 400, "-1", "²", "x"]) | st.text(max_size=5)
    lines = st.lists(words, max_size=6).map(" ".join) | st.text(max_size=600)

    def check(line: str) -> None:
        try:
            shown = _parse(line, "dev")["name"]
        except BackendError as error:
            shown = error.message
        assert shown.isprintable()
        assert len(shown) <= 5000

    fuzz(check, lines)
