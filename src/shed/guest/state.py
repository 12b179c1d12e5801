"""What the agent knows of its shed, shared by the services."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from shed.guest.configure.request import Network
    from shed.guest.freezer import Freezer
    from shed.guest.loop import Watch
    from shed.guest.users import User

    class Session(Protocol):
        """A command that runs."""

        def hang_up(self) -> None:
            """Tell it that its client is gone."""


HELLO = "hello"
"""Waiting to be configured."""
CONFIGURING = "configuring"
READY = "ready"
FROZEN = "frozen"
"""Standing still: this machine is being kept as it is, or goes on from what was kept."""
FAILED = "failed"
"""Configuring failed: nothing runs here any more."""
STOPPING = "stopping"


class State:
    """The agent's state; `user`, `env` and `folders` hold once it is ready."""

    def __init__(self) -> None:
        self.phase = HELLO
        self.name = ""
        self.user: User
        self.no_user = ""
        """Why commands have to say whom they run as: empty when `user` is who they run as."""
        self.env: dict[str, str] = {}
        self._outfit: dict[str, str] = {}
        self._make_outfit: Callable[[], dict[str, str]] | None = None
        self.folders = ["/workspace"]
        """Where commands start, best first."""
        self.init = "agent"
        self.quiesced = False
        """Whether this machine was got ready to be saved: it may be one that was restored."""
        self.network: Network | None = None
        """What its card was set up for then."""
        self.unsettled = False
        """Whether who this shed is is still to be recorded."""
        self.upper_fd = -1
        """The upper's root folder, kept open: after the move into the new root no path leads there."""
        self.freezer: Freezer | None = None
        """What has the processes stand still, while they do."""
        self.sessions: set[Session] = set()
        self.arrived: dict[int, Watch] = {}
        """Connections that came to a listener and wait for the host, by number."""
        self.arrivals = 0

    def go_on(self) -> None:
        """Have processes that stand still go on.  Raises `OSError`."""
        if self.freezer is not None:
            self.freezer.thaw()
            self.freezer, self.phase = None, READY

    def equip_later(self, make: Callable[[], dict[str, str]]) -> None:
        """Put off making what `outfit` returns until `equip`, or the next command."""
        self._make_outfit = make

    @property
    def must_equip(self) -> bool:
        """Whether something is put off."""
        return self._make_outfit is not None

    def equip(self) -> None:
        """Do what was put off, if anything was.  Raises what it does; the outfit stays as it was then."""
        make, self._make_outfit = self._make_outfit, None
        if make is not None:
            self._outfit = make()

    def outfit(self) -> dict[str, str]:
        """Return the variables that may change: they win over `env`."""
        self.equip()
        return self._outfit

    def runs_commands(self) -> bool:
        """Return whether commands can run.

        They can in a shed and, for a rehearsal, in a machine that is ready to be saved.
        """
        return self.phase == READY or (self.phase == HELLO and self.quiesced)
