# Generated from shed/client/aio/api.py: change that one, and run `make sdk`.
"""The API of a server as an object: a method for each of its requests, and plain JSON as results.

The command line uses it as it is; the SDK, `shed.client.sync.client`, makes typed objects of what it returns.
"""

from __future__ import annotations

from shed.client import messages
from shed.client.address import Address
from shed.client.config import resolve
from shed.client.messages import image_query, object_of, objects_of, shed_target
from shed.client.sync import driver
from shed.client.sync.access import AccessApi
from shed.client.sync.attached import Attached
from shed.client.sync.network import NetworkApi
from shed.client.sync.prebuilds import PrebuildsApi
from shed.client.sync.requests import Exchange, request, work
from shed.client.sync.secrets import SecretsApi
from shed.client.sync.snapshots import SnapshotsApi
from shed.client.transport import ANSWER_TIMEOUT
from shed.errors import NotFoundError, UnavailableError
from shed.names import check_session_name, check_shed_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Unpack

    from shed.client.options import ShedChanges, ShedOptions
    from shed.client.sync.requests import Sink


class Api(AccessApi, NetworkApi, PrebuildsApi, SecretsApi, SnapshotsApi):
    """Talks to one server: the one named, or whichever `shed.client.config.resolve` finds.

    The local one is started when needed.  Every method raises the `ShedError` that the server answers with, and
    `UnavailableError` when it cannot be reached.
    """

    def __init__(self, server: str | Address | None = None, *, token: str | None = None) -> None:
        self.address = server if isinstance(server, Address) else resolve(server)
        self.address.token = token or self.address.token

    def info(self, *, start: bool = True) -> dict[str, Any]:
        """Return what the server says of itself; without `start`, a local one that is not running is left alone."""
        return object_of(request(self.address, "GET", "/api/info", start=start, timeout=ANSWER_TIMEOUT))

    def ssh_host_key(self) -> str:
        """Return the public key of the server's SSH front.  Raises `UnavailableError` when it has none."""
        return str(object_of(request(self.address, "GET", "/api/ssh-host-key")).get("host_key", ""))

    def stop_server(self) -> None:
        """Ask the server to end; running sheds stay."""
        request(self.address, "POST", "/api/server/stop", start=False)

    def sheds(self, *, timeout: float = ANSWER_TIMEOUT, on_event: Sink | None = None) -> list[dict[str, Any]]:
        """Return all sheds; `on_event` gets a warning for each one whose records cannot be read.

        `timeout` is how many seconds the server may be silent.
        """
        answer = request(self.address, "GET", "/api/sheds", timeout=timeout)
        messages.tell_warnings(answer, on_event)
        return objects_of(answer, "sheds")

    def stats(self) -> list[dict[str, Any]]:
        """Return what running sheds use of their host."""
        return objects_of(request(self.address, "GET", "/api/stats"), "sheds")

    def shed(self, name: str, *, timeout: float = ANSWER_TIMEOUT) -> dict[str, Any]:
        """Return one shed; `timeout` is how many seconds the server may be silent."""
        return object_of(request(self.address, "GET", shed_target(name), timeout=timeout))

    def events(
        self, *, shed: str | None = None, kinds: list[str] | None = None, tail: int | None = None
    ) -> list[dict[str, Any]]:
        """Return what has happened on the server lately, the last `tail` of it: see `follow_events`."""
        target = messages.events_target(shed, kinds, tail)
        return objects_of(request(self.address, "GET", target), "events")

    def follow_events(
        self,
        *,
        shed: str | None = None,
        kinds: list[str] | None = None,
        tail: int | None = 0,
        output: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the last `tail` events, and then others as they happen; None: all that the server remembers.

        First comes an empty one, which says that nothing is missed from now on.  `kinds` are as `egress.refused`, or
        groups: `egress`.  Closing the iterator drops the connection.  Raises `UnavailableError` when the server ends,
        and `BrokenPipeError` when nobody reads the descriptor `output` any more.
        """
        target = messages.events_target(shed, kinds, tail)
        with Exchange(self.address, "GET", target, accept=messages.EVENTS, output=output) as exchange:
            yield {}
            for event in exchange.events():
                yield event.data
        raise UnavailableError(f"the server at {self.address} went away", hint="follow its events again")

    def create(self, name: str, *, on_event: Sink | None = None, **options: Unpack[ShedOptions]) -> dict[str, Any]:
        """Create and start a shed; `options` are those of `shed.client.options.ShedOptions`."""
        body = messages.new_shed(name, options)
        return work(self.address, "POST", "/api/sheds?progress=blob", body=body, on_event=on_event)

    def attached(self, name: str, **options: Unpack[ShedOptions]) -> Attached:
        """Return a context in which there is a shed: the server deletes it when the block ends, or this program.

        `options` are those of `create`.
        """
        return Attached(self.address, name, options)

    def start(
        self,
        name: str,
        *,
        cold: bool = False,
        force: bool = False,
        disk_only: bool = False,
        on_event: Sink | None = None,
    ) -> dict[str, Any]:
        """Start a stopped shed, or have a suspended one go on where it was; `cold` and `force` as for `create`.

        With `disk_only` the disk of a suspended one is booted: what ran there is gone.
        """
        target = shed_target(name, "start") + messages.in_query(cold=cold, force=force)
        body = messages.given(disk_only=disk_only or None)
        return work(self.address, "POST", target, body=body or None, on_event=on_event)

    def provision(
        self,
        name: str,
        *,
        again: bool = False,
        limit: float | None = None,
        agent: str | None = None,
        on_event: Sink | None = None,
    ) -> dict[str, Any]:
        """Run the hooks of the project in a shed's workspace: `install` unless it has succeeded before, and `startup`.

        With `again` that, too; each has `limit` seconds.  Where its repository was not cloned, it is now; `agent` is
        the socket of an SSH agent in the shed for that.  What went wrong is in `failed` of the answer.
        """
        body = messages.given(again=again, limit=limit, agent=agent)
        return work(self.address, "POST", shed_target(name, "provision"), body=body, on_event=on_event)

    def suspend(self, name: str, *, on_event: Sink | None = None) -> dict[str, Any]:
        """Put what is in the memory of a running shed on the disk, and end its VM."""
        return work(self.address, "POST", shed_target(name, "suspend"), on_event=on_event)

    def resume(self, name: str, *, force: bool = False, on_event: Sink | None = None) -> dict[str, Any]:
        """Have a suspended shed go on where it was; `force` as for `create`."""
        body = messages.given(force=force or None)
        return work(self.address, "POST", shed_target(name, "resume"), body=body, on_event=on_event)

    def keep_awake(self, name: str, *, seconds: float = 3600.0, reason: str = "") -> dict[str, Any]:
        """Have a shed not be suspended for being idle, for so many seconds; return by what.

        A suspended one goes on.
        """
        body = {"seconds": seconds, "reason": reason}
        return object_of(request(self.address, "POST", shed_target(name, "awake"), body=body))

    def release_awake(self, name: str, lease: str | None = None) -> list[dict[str, Any]]:
        """Have a shed be kept awake no more by `lease`, or by any without it; return what did."""
        target = shed_target(name, "awake") + ("" if lease is None else f"?lease={messages.quoted(lease)}")
        return objects_of(request(self.address, "DELETE", target), "leases")

    def stop(self, name: str, *, on_event: Sink | None = None) -> dict[str, Any]:
        """Stop a running shed; its files stay."""
        return work(self.address, "POST", shed_target(name, "stop"), on_event=on_event)

    def update(self, name: str, *, on_event: Sink | None = None, **changes: Unpack[ShedChanges]) -> dict[str, Any]:
        """Change a shed; what is None stays.

        Processors and memory count from its next start on, its disk grows at once, and after `ttl` seconds from now its
        time is up.  The others are as for `create`.
        """
        body = messages.given(**changes)
        return work(self.address, "POST", shed_target(name, "update"), body=body, on_event=on_event)

    def rename(self, name: str, to: str) -> dict[str, Any]:
        """Give a stopped shed another name."""
        return object_of(request(self.address, "POST", shed_target(name, "rename"), body={"to": check_shed_name(to)}))

    def delete(self, name: str, *, force: bool = False, on_event: Sink | None = None) -> None:
        """Delete a shed and its files; with `force` also one that runs, or whose records are broken."""
        work(self.address, "DELETE", messages.delete_target(name, force=force), on_event=on_event)

    def undo_create(self, name: str) -> None:
        """End the create of a shed, and wait until nothing is left of it.

        Raises `ConflictError` (SHED_COMPLETE) when it is made already, `NotFoundError` when there is no such create.
        """
        work(self.address, "DELETE", messages.delete_target(name, unfinished=True))

    def logs(self, name: str, *, tail: int | None = None) -> str:
        """Return the text on the shed's console since its last start, the last `tail` lines of it."""
        answer = request(self.address, "GET", messages.logs_target(name, tail))
        return answer if isinstance(answer, str) else ""

    def follow_logs(self, name: str, *, tail: int | None = None, output: int | None = None) -> Iterator[bytes]:
        """Yield what `logs` returns, and then what the console says as it comes.

        It goes on over restarts, until the shed is deleted.  Closing the iterator drops the connection.  Raises
        `BrokenPipeError` when nobody reads the descriptor `output` any more.
        """
        connection = driver.open_connection(self.address, "GET", messages.logs_target(name, tail), messages.LOG)
        try:
            while data := connection.read(output=output):
                yield data
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UnavailableError(f"lost the connection to the server at {self.address}: {error.strerror}") from None
        finally:
            connection.close()
        try:
            request(self.address, "GET", shed_target(name), start=False)
        except NotFoundError:
            return
        raise UnavailableError(f"the server at {self.address} went away", hint=f"go on with: shed logs -f {name}")

    def health(self, name: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the agent in a running shed says of itself; `timeout` as for `shed`."""
        return object_of(request(self.address, "GET", shed_target(name, "health"), timeout=timeout))

    def check_workspace(self, name: str, *, mount: str | None = None) -> dict[str, Any]:
        """Return what in the folder that a shed has at `mount`, or else its workspace, may run on its host by itself.

        That is ``findings`` of ``path``, ``why`` and ``changed``, which means since the shed was made.  A large folder
        takes several requests.
        """
        target = messages.workspace_target(name, mount)
        answer = object_of(request(self.address, "GET", target))
        found = objects_of(answer, "findings")
        while isinstance(after := answer.get("after"), str):
            answer = object_of(request(self.address, "GET", messages.workspace_target(name, mount, after)))
            found += objects_of(answer, "findings")
        return {**answer, "findings": found}

    def sessions(self, name: str) -> list[dict[str, Any]]:
        """Return the tmux sessions in a running shed."""
        return objects_of(request(self.address, "GET", shed_target(name, "sessions")), "sessions")

    def all_sessions(self, *, on_event: Sink | None = None) -> list[dict[str, Any]]:
        """Return the tmux sessions in all running sheds.

        `on_event` gets a warning for each shed that could not be asked.
        """
        answer = request(self.address, "GET", "/api/sessions")
        messages.tell_warnings(answer, on_event)
        return objects_of(answer, "sessions")

    def kill_session(self, name: str, session: str) -> None:
        """End a tmux session in a running shed, and what runs in it."""
        request(self.address, "DELETE", shed_target(name, "sessions", check_session_name(session)))

    def images(self, *, on_event: Sink | None = None) -> list[dict[str, Any]]:
        """Return the images in the server's store.

        `on_event` gets a warning for each shed of which it cannot be told what it needs.
        """
        answer = request(self.address, "GET", "/api/images")
        messages.tell_warnings(answer, on_event)
        return objects_of(answer, "images")

    def image(self, image: str) -> dict[str, Any]:
        """Return all that is known of the image with this name or digest."""
        return object_of(request(self.address, "GET", f"/api/images/inspect{image_query(image)}"))

    def image_history(self, image: str) -> list[dict[str, Any]]:
        """Return the steps that made an image, the last one first."""
        return objects_of(request(self.address, "GET", f"/api/images/history{image_query(image)}"), "steps")

    def remove_image(self, image: str) -> dict[str, Any]:
        """Remove the tag `image`, or all names of the image with this reference or digest.

        Return what was removed.
        """
        return object_of(request(self.address, "DELETE", f"/api/images{image_query(image)}"))

    def prune_images(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Remove what nobody needs from the server's store and return what that was; with `dry_run` only look."""
        target = "/api/images/prune" + messages.in_query(dry_run=dry_run)
        return object_of(request(self.address, "POST", target))

    def tag_image(self, image: str, name: str) -> str:
        """Have the server call an image `name`, too; return its digest."""
        body = {"image": image, "name": name}
        return str(object_of(request(self.address, "POST", "/api/images/tag", body=body)).get("digest", ""))

    def trust_image(self, image: str) -> list[str]:
        """Let the kernel and the initrd that an image brings boot on the server from now on; return their digests."""
        answer = request(self.address, "POST", "/api/images/trust", body={"image": image})
        return [str(digest) for digest in messages.items_of(answer, "digests")]

    def verify_image(self, image: str, *, deep: bool = False, on_event: Sink | None = None) -> dict[str, Any]:
        """Have the server read an image again, with `deep` compare it with its layers; return what it found."""
        body = {"image": image, "deep": deep}
        return work(self.address, "POST", "/api/images/verify", body=body, on_event=on_event)

    def push_image(
        self, image: str, destination: str, *, insecure: bool = False, on_event: Sink | None = None
    ) -> dict[str, Any]:
        """Have the server push an image to `destination`, ``registry/repository[:tag]``; return what it did."""
        body = {"image": image, "destination": destination, "insecure": insecure}
        return work(self.address, "POST", "/api/images/push", body=body, on_event=on_event)

    def pull_image(
        self,
        image: str,
        *,
        tag: str | None = None,
        platform: str | None = None,
        with_layers: bool = False,
        insecure: bool = False,
        detach: bool = False,
        trust_kernel: bool = False,
        on_event: Sink | None = None,
    ) -> dict[str, Any]:
        """Have the server pull the image with this reference; return what it did.

        It is called `tag`, or by the last part of its path.  The pull ends when this process does, or the connection,
        unless it is to `detach`.  With `trust_kernel` the kernel and the initrd that it brings may boot there from then
        on; that needs the right to administer.
        """
        body = messages.given(
            image=image,
            tag=tag,
            platform=platform,
            with_layers=with_layers,
            insecure=insecure,
            trust_kernel=trust_kernel,
        )
        target = f"/api/images/pull?progress=blob{'&detach=true' if detach else ''}"
        return work(self.address, "POST", target, body=body, on_event=on_event)

    def usage(self) -> dict[str, Any]:
        """Return what the server's data takes up.

        That is ``kinds`` by name, and ``total``, with ``size_bytes`` and ``disk_bytes`` each.
        """
        return object_of(request(self.address, "GET", "/api/system/df"))

    def clean(
        self,
        scopes: list[str],
        *,
        until: float,
        log_tail: int | None = None,
        dry_run: bool = False,
        on_event: Sink | None = None,
    ) -> dict[str, Any]:
        """Delete what has not been used for `until` seconds in `scopes` (the usual ones when there is none).

        With `dry_run` only look.  The scope ``logs`` also cuts the console logs of sheds to their last `log_tail`
        bytes, 5 MiB when it is None.  Returns what it was: rows by scope, ``consoles`` for logs that are cut, and
        ``size_bytes``.
        """
        body = {**dict.fromkeys(scopes, True), "until_seconds": until, "log_tail_bytes": log_tail, "dry_run": dry_run}
        return work(self.address, "POST", "/api/system/prune", body=body, on_event=on_event)

    def connect(self, name: str, port: int) -> driver.Stream:
        """Return a stream that leads to the TCP port `port` of the shed's loopback.

        It has both halves and resets as in TCP.  Raises `ConnectError` when nothing listens there, `UnavailableError`
        (SHED_NOT_RUNNING) for a shed that does not run.
        """
        target = messages.connect_target(name, port)
        return driver.open_stream(self.address, "GET", target, messages.CONNECT)
