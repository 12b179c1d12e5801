"""The part of the API that is about what sheds reach of their host: egress profiles and logs, ports, and folders."""

from __future__ import annotations

from shed.client import messages
from shed.client.address import Address
from shed.client.aio.requests import request
from shed.client.messages import object_of, objects_of, shed_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EGRESS = "/api/egress/profiles"


class AsyncNetworkApi:
    """See `shed.client.aio.api`."""

    address: Address

    async def egress_profiles(self) -> dict[str, Any]:
        """Return the egress profiles as ``profiles``, and the names of those of a shed for which none are named."""
        answer = object_of(await request(self.address, "GET", _EGRESS))
        return {**answer, "profiles": objects_of(answer, "profiles")}

    async def set_egress_profile(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        """Keep an egress profile; `document` has ``rules`` and may have ``log``.  Return it."""
        return object_of(await request(self.address, "POST", f"{_EGRESS}/{messages.quoted(name)}", body=document))

    async def remove_egress_profile(self, name: str) -> None:
        """Remove an egress profile that no shed has."""
        await request(self.address, "DELETE", f"{_EGRESS}/{messages.quoted(name)}")

    async def shed_egress(self, name: str) -> dict[str, Any]:
        """Return what a shed may reach."""
        return object_of(await request(self.address, "GET", shed_target(name, "egress")))

    async def set_shed_egress(self, name: str, profiles: list[str]) -> dict[str, Any]:
        """Rule by these profiles what a shed may reach; return how many connections that has ``cut``, too."""
        body = {"profiles": profiles}
        return object_of(await request(self.address, "POST", shed_target(name, "egress"), body=body))

    async def shed_ports(self, name: str) -> dict[str, Any]:
        """Return the ports of the server's machine that lead into a shed, those it reaches, and what listens in it."""
        return object_of(await request(self.address, "GET", shed_target(name, "ports")))

    async def change_ports(
        self,
        name: str,
        *,
        publish: list[str] | None = None,
        unpublish: list[int] | None = None,
        host_ports: list[str] | None = None,
        no_host_ports: list[int] | None = None,
    ) -> dict[str, Any]:
        """Change the ports of a shed and return all that it has then.

        `publish` has ports of the server's machine that are to lead into it (``[ADDRESS:][PORT:]SHEDPORT``),
        `host_ports` those that it may reach (``PORT[:SHEDPORT]``); `unpublish` and `no_host_ports` have the numbers on
        that machine of those to take away.
        """
        body = messages.given(publish=publish, unpublish=unpublish, host_ports=host_ports, no_host_ports=no_host_ports)
        return object_of(await request(self.address, "POST", shed_target(name, "ports"), body=body))

    async def shed_mounts(self, name: str) -> dict[str, Any]:
        """Return the folders of the server's machine that a shed has as ``mounts``, its workspace first."""
        return object_of(await request(self.address, "GET", shed_target(name, "mounts")))

    async def change_mounts(
        self, name: str, *, add: list[str] | None = None, remove: list[str] | None = None, force: bool = False
    ) -> dict[str, Any]:
        """Give a shed folders (``SRC:DST[:MODE]``), and take those at the places `remove` away; return all it has then.

        With `force` also those that are in use.  A SRC that is relative is one of this program's working directory.
        """
        body = messages.given(add=messages.mounts_of(add or ()), remove=remove, force=force)
        return object_of(await request(self.address, "POST", shed_target(name, "mounts"), body=body))

    async def egress_log(self, name: str, *, tail: int | None = None) -> list[dict[str, Any]]:
        """Return what was decided about a shed's connections, the last `tail` entries."""
        target = shed_target(name, "egress", "log") + ("" if tail is None else f"?tail={tail:d}")
        return objects_of(await request(self.address, "GET", target), "entries")
