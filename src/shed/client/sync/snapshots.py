# Generated from shed/client/aio/snapshots.py: change that one, and run `make sdk`.
"""The requests about snapshots."""

from __future__ import annotations

from shed.client import messages
from shed.client.address import Address
from shed.client.messages import object_of, objects_of, shed_target
from shed.client.sync.requests import request, work
from shed.names import check_shed_name, check_snapshot_name
from shed.progress import WarningEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.client.sync.requests import Sink


class SnapshotsApi:
    """The part of `Api` that is about snapshots: what sheds had written at one moment."""

    address: Address

    def snapshots(self, *, on_event: Sink | None = None) -> list[dict[str, Any]]:
        """Return all snapshots; `on_event` gets a warning for each one whose record cannot be read."""
        answer = object_of(request(self.address, "GET", "/api/snapshots"))
        for warning in answer.get("warnings") or []:
            if on_event is not None:
                on_event(WarningEvent(str(warning)))
        return objects_of(answer, "snapshots")

    def snapshot(self, name: str) -> dict[str, Any]:
        """Return one snapshot."""
        return object_of(request(self.address, "GET", _target(name)))

    def create_snapshot(
        self,
        shed: str,
        name: str | None = None,
        *,
        comment: str = "",
        disk_only: bool = False,
        on_event: Sink | None = None,
    ) -> dict[str, Any]:
        """Keep what a shed has written and, of one that runs, its memory, unless `disk_only`; it runs on.

        Return what is known of the snapshot.  Without `name` it gets that of the shed and a number.
        """
        body = messages.given(
            shed=check_shed_name(shed),
            name=None if name is None else check_snapshot_name(name),
            comment=comment,
            disk_only=disk_only,
        )
        return object_of(work(self.address, "POST", "/api/snapshots", body=body, on_event=on_event))

    def rollback(
        self,
        name: str,
        snapshot: str | None = None,
        *,
        discard: bool = False,
        disk_only: bool = False,
        on_event: Sink | None = None,
    ) -> dict[str, Any]:
        """Have a shed go back to a snapshot, its last one without `snapshot`, and go on from its memory.

        Without memory, or with `disk_only`, it must be stopped, and stays so.  What it was is kept as a snapshot,
        unless that is to be `discard`ed.
        """
        body = messages.given(
            snapshot=None if snapshot is None else check_snapshot_name(snapshot), discard=discard, disk_only=disk_only
        )
        return object_of(work(self.address, "POST", shed_target(name, "rollback"), body=body, on_event=on_event))

    def fork(self, name: str, new: str, *, count: int = 1, on_event: Sink | None = None) -> list[dict[str, Any]]:
        """Make `count` sheds that go on from what a running one is now; return what became of each.

        The fork is called `new`; several are called that, a dash and a number.
        """
        body = messages.given(new_name=check_shed_name(new), count=count)
        answer = work(self.address, "POST", shed_target(name, "fork"), body=body, on_event=on_event)
        return objects_of(object_of(answer), "forks")

    def reset(self, name: str, *, on_event: Sink | None = None) -> dict[str, Any]:
        """Have a stopped shed begin anew, with its image alone: what it has written is gone."""
        return object_of(work(self.address, "POST", shed_target(name, "reset"), on_event=on_event))

    def push_snapshot(
        self,
        name: str,
        destination: str,
        *,
        with_memory: bool = False,
        insecure: bool = False,
        on_event: Sink | None = None,
    ) -> dict[str, Any]:
        """Push a snapshot to `destination`, ``registry/repository[:tag]``; return what was sent.

        `with_memory`: send what was in memory, too, with all secrets that are there.  `insecure`: speak plain HTTP
        with the registry.
        """
        body = messages.given(destination=destination, with_memory=with_memory or None, insecure=insecure or None)
        return object_of(work(self.address, "POST", _target(name, "/push"), body=body, on_event=on_event))

    def pull_snapshot(
        self,
        reference: str,
        name: str | None = None,
        *,
        with_memory: bool = False,
        insecure: bool = False,
        on_event: Sink | None = None,
    ) -> dict[str, Any]:
        """Pull a snapshot, as long as this client waits; return it, and what came.

        Without `name` it is called by the last part of the repository's path.  `with_memory`: fetch its memory, too,
        which is to trust its maker as one trusts a program.  `insecure`: speak plain HTTP with the registry.
        """
        body = messages.given(
            reference=reference,
            name=None if name is None else check_snapshot_name(name),
            with_memory=with_memory or None,
            insecure=insecure or None,
        )
        return object_of(work(self.address, "POST", "/api/snapshots/pull", body=body, on_event=on_event))

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot; sheds that were made from it keep what they have."""
        request(self.address, "DELETE", _target(name))


def _target(name: str, what: str = "") -> str:
    return f"/api/snapshots/{messages.quoted(check_snapshot_name(name))}{what}"
