"""The user's SSH agent in a shed, for as long as a block lasts, by OpenSSH and the server's SSH front."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

from shed.cli.ssh import host_of
from shed.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from shed.cli.options import Options
    from shed.client.sync.api import Api

_TELL = 'echo "$SSH_AUTH_SOCK"; exec cat'
_LONGEST = 100


def here() -> bool:
    """Say whether the user has an agent."""
    return bool(os.environ.get("SSH_AUTH_SOCK"))


@contextlib.contextmanager
def forwarded(server: Api, name: str, options: Options) -> Iterator[str]:
    """Forward the agent to the shed `name`, as far as its rule allows; yield where its socket is there.

    What the shed was refused comes to standard error, from the server.  Raises `UnavailableError` (TOOL_MISSING,
    SSH_OFF, AGENT_NOT_FORWARDED), and what asking the server does.
    """
    if not here():
        raise UnavailableError("there is no SSH agent here", code="AGENT_NOT_FORWARDED", hint="start one: ssh-agent")
    host = host_of(server, name, options)
    with tempfile.TemporaryDirectory(prefix="shed-ssh-") as folder:
        config = Path(folder, "config")
        config.write_text(f"{host.text()}\nMatch all\n    Include ~/.ssh/config\n")
        command = ["ssh", "-F", str(config), "-A", "-T", "-o", "BatchMode=yes", host.alias, _TELL]
        try:
            session = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except FileNotFoundError:
            raise UnavailableError("there is no ssh here", code="TOOL_MISSING", hint="install openssh-client") from None
        with session:
            try:
                assert session.stdout is not None
                place = session.stdout.readline(_LONGEST).decode(errors="replace").strip()
                if not place.startswith("/"):
                    raise UnavailableError(
                        f"your SSH agent was not forwarded to {name}",
                        code="AGENT_NOT_FORWARDED",
                        hint="see what ssh says above",
                    )
                yield place
            finally:
                session.terminate()
