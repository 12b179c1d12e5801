"""The agent: says hello, then serves the host until the machine ends."""

from __future__ import annotations

import os
import sys
import time

from shed.guest import mux, protocol, wirejson
from shed.guest.loop import Loop
from shed.guest.state import State
from shed.guest.transport import Port, find_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from shed.guest.mux import Stream

AGENT_VERSION = "0.5.2"
_ENDS = {38: False, 39: True}
"""Signals to the first process that switch off or restart: SIGRTMIN+4 and SIGRTMIN+5, as systemd has them.  A first
process that is not the agent any more gets them itself.
"""


def services(loop: Loop, state: State) -> Mapping[int, Callable[[Stream], Coroutine[Any, Any, None]]]:
    """Return what answers on which port.

    Their modules are imported with their first stream: hello must not wait for them.
    """

    async def run_command(stream: Stream) -> None:
        from shed.guest import exec as command

        await command.serve(loop, state, stream)

    async def control(stream: Stream) -> None:
        from shed.guest.control import Control

        await Control(loop, state).serve(stream)

    async def proxy(stream: Stream) -> None:
        from shed.guest import proxy as connection

        await connection.serve(loop, stream)

    async def listen(stream: Stream) -> None:
        from shed.guest import listen as listening

        await listening.serve(loop, state, stream)

    return {
        protocol.PORT_EXEC: run_command,
        protocol.PORT_CONTROL: control,
        protocol.PORT_PROXY: proxy,
        protocol.PORT_LISTEN: listen,
    }


def hello(nonce: str) -> bytes:
    """Return the payload of a HELLO."""
    return wirejson.dumps(
        {
            "nonce": nonce,
            "agent": AGENT_VERSION,
            "protocol": protocol.PROTOCOL,
            "uptime": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
        }
    )


def _ending(loop: Loop, shed: State, *, restarts: bool) -> Callable[[], None]:
    """Return what ends the machine, once."""

    def end() -> None:
        from shed.guest import state
        from shed.guest.poweroff import power_off

        if shed.phase != state.STOPPING:
            shed.phase = state.STOPPING
            loop.spawn(power_off(loop, shed, reboot=restarts), name="poweroff")

    return end


def main() -> None:
    """Run as the machine's first process; never returns.

    When the agent itself breaks, the machine goes off: nobody could reach it.
    """
    try:
        os.umask(0o022)
        loop = Loop()
        port = Port(loop, os.open(find_port(), os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        loop.reap_children(adopted=True)
        shed = State()
        for number, restarts in _ENDS.items():
            loop.on_signal(number, _ending(loop, shed, restarts=restarts))
        loop.spawn(mux.serve_port(loop, port, services(loop, shed), hello), name="port")
        loop.run()
    except BaseException as error:  # noqa: BLE001
        sys.stderr.write("shed-agent: PANIC [SHED-INIT-09]: the agent failed\n")
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
        from shed.guest import syscalls

        time.sleep(0.2)  # the serial line drains
        os.sync()
        syscalls.power_off()
