"""The process behind ``shed tunnels start -d``: ``python -m shed.cli.tunnel_process DESCRIPTOR PLAN``.

It tells the descriptor once, as JSON, that its ports are open, or what kept it from that.  Its standard output and
error are its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

from shed.cli.tunnels import run
from shed.client.address import parse
from shed.client.forward import parse_rule
from shed.client.tunnels import Tunnels
from shed.errors import ShedError, of_os_error
from shed.text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.cli.tunnels import Forwards

_LONGEST_LOG = 256 * 1024


def main() -> int:
    """Keep tunnels open until told to end."""
    descriptor, plan = int(sys.argv[1]), json.loads(sys.argv[2])
    os.set_inheritable(descriptor, False)
    mine = Tunnels(plan["shed"], plan["server"])

    def ready(forwards: Forwards) -> None:
        mine.record(forwards, plan["address"])
        _say(f"open: {' '.join(map(str, plan['rules']))} through {plan['address']}")
        _tell(descriptor, {"forwards": forwards})

    try:
        mine.hold()
        run(parse(plan["address"]), mine.shed, [parse_rule(text) for text in plan["rules"]], ready=ready, say=_say)
    except (ShedError, OSError) as error:
        told = error if isinstance(error, ShedError) else of_os_error(error)
        if told is None:
            raise
        _say(told.message)
        _tell(descriptor, {"error": told.message, "code": told.code, "hint": told.next_step})
        return told.exit_code
    _say("closed")
    return 0


def _tell(descriptor: int, value: object) -> None:
    with contextlib.suppress(OSError):  # whoever started us has left, or has been told
        os.write(descriptor, json.dumps(value).encode())
        os.close(descriptor)


def _say(sentence: str) -> None:
    """Write a line into the log, which begins anew when it has become long."""
    with contextlib.suppress(OSError):
        if os.fstat(1).st_size > _LONGEST_LOG:
            os.ftruncate(1, 0)
        os.write(1, f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {visible(sentence)}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
