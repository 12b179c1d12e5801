"""The API of a server as a Python object."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from shed.client import http
from shed.client.address import Address
from shed.client.config import resolve
from shed.client.execution import Execution
from shed.client.models import Shed
from shed.client.transport import ANSWER_TIMEOUT, upgrade
from shed.errors import NotFoundError, UnavailableError, UsageError
from shed.names import check_session_name, check_shed_name, check_token_name
from shed.progress import BlobEvent, BytesEvent, Event, PhaseEvent, WarningEvent

Sink = Callable[[Event], None]
CONNECT = "shed-tcp"
CREATE = "/api/sheds?progress=blob"
_SSH_KEYS = "/api/ssh-keys"
PULL = "/api/images/pull?progress=blob"


def _ignore(event: Event) -> None:
    """The sink of work that nobody watches."""


class Client:
    """Talks to one server: the one named, or whichever `shed.client.address.resolve` finds.

    The local one is started when needed.

    Every method raises the `ShedError` that the server answers with, and `UnavailableError` when it cannot be reached.
    """

    def __init__(self, server: str | Address | None = None, *, token: str | None = None) -> None:
        self.address = server if isinstance(server, Address) else resolve(server)
        self.address.token = token or self.address.token

    def info(self, *, start: bool = True) -> dict[str, Any]:
        """Return what the server says of itself.

        With `start` false, a local server that is not running is left alone.
        """
        return object_of(http.request(self.address, "GET", "/api/info", start=start, timeout=ANSWER_TIMEOUT))

    def ssh_host_key(self) -> str:
        """Return the public key of the server's SSH front.  Raises `UnavailableError` when it has none."""
        return str(object_of(http.request(self.address, "GET", "/api/ssh-host-key")).get("host_key", ""))

    def create_token(
        self, name: str, *, right: str = "use", expires_in: float | None = None
    ) -> tuple[dict[str, Any], str]:
        """Make a token for the server's TCP port.

        Return what the server says of it, and its secret, which the server does not know.

        `right` is ``read``, ``use`` or ``admin``; `expires_in` is in seconds.
        """
        import hashlib  # noqa: PLC0415  few make tokens
        import secrets  # noqa: PLC0415

        secret = f"shed_{secrets.token_urlsafe(32)}"
        body = {
            "name": check_token_name(name),
            "right": right,
            "sha256": hashlib.sha256(secret.encode()).hexdigest(),
            "expires_in": expires_in,
        }
        return object_of(http.request(self.address, "POST", "/api/tokens", body=body)), secret

    def tokens(self) -> dict[str, Any]:
        """Return the server's tokens, without their secrets, as ``tokens``."""
        return object_of(http.request(self.address, "GET", "/api/tokens"))

    def revoke_token(self, name: str) -> None:
        """Make a token invalid."""
        http.request(self.address, "DELETE", f"/api/tokens/{check_token_name(name)}")

    def ssh_keys(self) -> list[dict[str, Any]]:
        """Return the keys that the server lets in by SSH, without those of its configuration."""
        return [object_of(item) for item in items_of(http.request(self.address, "GET", _SSH_KEYS), "keys")]

    def add_ssh_key(self, line: str) -> str:
        """Have the server let in a public key; return its fingerprint."""
        return str(object_of(http.request(self.address, "POST", _SSH_KEYS, body={"key": line})).get("fingerprint", ""))

    def remove_ssh_key(self, fingerprint: str) -> None:
        """Have the server let in a key no more, from the next connection on."""
        http.request(self.address, "DELETE", f"{_SSH_KEYS}/{quote(fingerprint, safe='')}")

    def stop_server(self) -> None:
        """Ask the server to end; running sheds stay."""
        http.request(self.address, "POST", "/api/server/stop", start=False)

    def sheds(self, *, timeout: float = ANSWER_TIMEOUT, on_event: Sink = _ignore) -> list[Shed]:
        """Return all sheds; `on_event` gets a warning for each one whose records cannot be read.

        `timeout` is in seconds.
        """
        answer = http.request(self.address, "GET", "/api/sheds", timeout=timeout)
        for warning in items_of(answer, "warnings"):
            on_event(WarningEvent(str(warning)))
        return [Shed.from_wire(object_of(item)) for item in items_of(answer, "sheds")]

    def shed(self, name: str, *, timeout: float = ANSWER_TIMEOUT) -> Shed:
        """Return one shed; `timeout` is in seconds."""
        return Shed.from_wire(object_of(http.request(self.address, "GET", shed_target(name), timeout=timeout)))

    def create(
        self,
        name: str,
        *,
        image: str | None = None,
        cpus: int | None = None,
        memory_mb: int | None = None,
        upper_size_bytes: int | None = None,
        local_dir: str | None = None,
        local_dir_mode: str | None = None,
        timeout: float | None = None,
        cold: bool = False,
        force: bool = False,
        trust_kernel: bool = False,
        on_event: Sink = _ignore,
    ) -> Shed:
        """Create and start a shed; what is None is the server's to choose.

        `local_dir` is an absolute path on the server's machine, `local_dir_mode` one of ``rw``, ``ro`` and ``git-rw``,
        `timeout` the seconds after which the server gives up and undoes all. `cold` has its VM booted, whatever it
        could be restored from; `force` has it started on a host that is short of memory, too. `trust_kernel` lets the
        kernel and the initrd of the image boot there from then on; that needs the right to administer.
        """
        body = create_body(
            name,
            image=image,
            cpus=cpus,
            memory_mb=memory_mb,
            upper_size_bytes=upper_size_bytes,
            local_dir=local_dir,
            local_dir_mode=local_dir_mode,
            timeout=timeout,
            cold=cold or None,
            force=force or None,
            trust_kernel=trust_kernel or None,
        )
        return Shed.from_wire(self._work("POST", CREATE, on_event, body=body))

    def start(self, name: str, *, cold: bool = False, force: bool = False, on_event: Sink = _ignore) -> Shed:
        """Start a stopped shed; `cold` and `force` as for `create`."""
        return Shed.from_wire(self._work("POST", start_target(name, cold=cold, force=force), on_event))

    def stop(self, name: str, *, on_event: Sink = _ignore) -> Shed:
        """Stop a running shed; its files stay."""
        return Shed.from_wire(self._work("POST", shed_target(name, "stop"), on_event))

    def delete(self, name: str, *, force: bool = False, on_event: Sink = _ignore) -> None:
        """Delete a shed and its files; with `force` also one that runs, or whose records are broken."""
        self._work("DELETE", delete_target(name, force=force), on_event)

    def logs(self, name: str, *, tail: int | None = None) -> str:
        """Return the text on the shed's console since its last start, the last `tail` lines of it."""
        answer = http.request(self.address, "GET", _logs(name, tail))
        return answer if isinstance(answer, str) else ""

    def follow_logs(self, name: str, *, tail: int | None = None, output: int | None = None) -> Iterator[bytes]:
        """Yield what `logs` returns, and then what the console says as it comes, over restarts, until the shed is deleted.

        Closing the iterator drops the connection.  Raises `BrokenPipeError` when nobody reads the descriptor `output`
        any more.
        """
        sock = upgrade(self.address, "GET", _logs(name, tail), "shed-log")
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        if output is not None:
            poll.register(output, 0)
        try:
            while True:
                if any(there == output for there, _ in poll.poll()):
                    raise BrokenPipeError
                if not (data := sock.recv(65536)):
                    break
                yield data
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UnavailableError(f"lost the connection to the server at {self.address}: {error.strerror}") from None
        finally:
            sock.close()
        try:
            http.request(self.address, "GET", shed_target(name), start=False)
        except NotFoundError:
            return
        raise UnavailableError(f"the server at {self.address} went away", hint=f"go on with: shed logs -f {name}")

    def check_workspace(self, name: str) -> dict[str, Any]:
        """Return what in the folder that a shed shares may run on its host by itself: ``findings`` of ``path``, ``why`` and ``changed``.

        ``changed`` means since the shed was made.  A large folder takes several requests.
        """
        target = shed_target(name, "workspace")
        answer = object_of(http.request(self.address, "GET", target))
        found = items_of(answer, "findings")
        while isinstance(after := answer.get("after"), str):
            answer = object_of(http.request(self.address, "GET", f"{target}?after={_quoted(after)}"))
            found += items_of(answer, "findings")
        return {**answer, "findings": [object_of(item) for item in found]}

    def sessions(self, name: str) -> list[dict[str, Any]]:
        """Return the tmux sessions in a running shed."""
        return [
            object_of(item)
            for item in items_of(http.request(self.address, "GET", shed_target(name, "sessions")), "sessions")
        ]

    def all_sessions(self, *, on_event: Sink = _ignore) -> list[dict[str, Any]]:
        """Return the tmux sessions in all running sheds.

        `on_event` gets a warning for each shed that could not be asked.
        """
        answer = http.request(self.address, "GET", "/api/sessions")
        for warning in items_of(answer, "warnings"):
            on_event(WarningEvent(str(warning)))
        return [object_of(item) for item in items_of(answer, "sessions")]

    def kill_session(self, name: str, session: str) -> None:
        """End a tmux session in a running shed, and what runs in it."""
        http.request(self.address, "DELETE", shed_target(name, "sessions", check_session_name(session)))

    def images(self, *, on_event: Sink = _ignore) -> list[dict[str, Any]]:
        """Return the images in the server's store.

        `on_event` gets a warning for each shed of which it cannot be told what it needs.
        """
        answer = http.request(self.address, "GET", "/api/images")
        for warning in items_of(answer, "warnings"):
            on_event(WarningEvent(str(warning)))
        return [object_of(item) for item in items_of(answer, "images")]

    def image(self, reference: str) -> dict[str, Any]:
        """Return all that is known of the image with this name or digest."""
        return object_of(http.request(self.address, "GET", f"/api/images/inspect?ref={_quoted(reference)}"))

    def remove_image(self, reference: str) -> dict[str, Any]:
        """Remove the tag `reference`, or all names of the image with this reference or digest.

        Return what was removed.
        """
        return object_of(http.request(self.address, "DELETE", f"/api/images?ref={_quoted(reference)}"))

    def prune_images(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Remove what nobody needs from the server's store and return what that was; with `dry_run` only look."""
        return object_of(http.request(self.address, "POST", f"/api/images/prune?dry_run={str(dry_run).lower()}"))

    def image_history(self, reference: str) -> list[dict[str, Any]]:
        """Return the steps that made an image, the last one first."""
        answer = http.request(self.address, "GET", f"/api/images/history?ref={_quoted(reference)}")
        return [object_of(item) for item in items_of(answer, "steps")]

    def tag_image(self, source: str, name: str) -> str:
        """Have the server call the image `source` `name`, too; return its digest."""
        return str(
            object_of(http.request(self.address, "POST", "/api/images/tag", body={"source": source, "name": name})).get(
                "digest", ""
            )
        )

    def trust_image(self, reference: str) -> list[str]:
        """Let the kernel and the initrd that an image brings boot on the server from now on; return their digests."""
        answer = object_of(http.request(self.address, "POST", "/api/images/trust", body={"ref": reference}))
        return [str(digest) for digest in answer.get("digests") or []]

    def verify_image(self, reference: str, *, deep: bool = False, on_event: Sink = _ignore) -> dict[str, Any]:
        """Have the server read an image again, with `deep` compare it with its layers; return what it found."""
        return self._work("POST", "/api/images/verify", on_event, body={"ref": reference, "deep": deep})

    def push_image(
        self, source: str, destination: str, *, insecure: bool = False, on_event: Sink = _ignore
    ) -> dict[str, Any]:
        """Have the server push the image `source` to `destination`, ``registry/repository[:tag]``.

        Return what it did.
        """
        body = {"source": source, "destination": destination, "insecure": insecure}
        return self._work("POST", "/api/images/push", on_event, body=body)

    def pull_image(
        self,
        reference: str,
        *,
        tag: str | None = None,
        platform: str | None = None,
        with_layers: bool = False,
        insecure: bool = False,
        detach: bool = False,
        trust_kernel: bool = False,
        on_event: Sink = _ignore,
    ) -> dict[str, Any]:
        """Have the server pull an image and call it `tag`, or by the last part of its path; return what it did.

        The pull ends when this process does, or the connection, unless it is to `detach`. With `trust_kernel` the
        kernel and the initrd that it brings may boot there from then on; that needs the right to administer.
        """
        body = {
            "docker_ref": reference,
            "tag": tag,
            "platform": platform,
            "with_layers": with_layers,
            "insecure": insecure,
        }
        body["trust_kernel"] = trust_kernel or None
        return self._work("POST", f"{PULL}&detach=true" if detach else PULL, on_event, body=body)

    def usage(self) -> dict[str, Any]:
        """Return what the server's data takes up: ``kinds`` by name, and ``total``, with ``size_bytes`` and ``disk_bytes`` each."""
        return object_of(http.request(self.address, "GET", "/api/system/df"))

    def clean(
        self,
        scopes: list[str],
        *,
        until: float,
        log_tail: int | None = None,
        dry_run: bool = False,
        on_event: Sink = _ignore,
    ) -> dict[str, Any]:
        """Delete what has not been used for `until` seconds in `scopes` (the usual ones when there is none).

        With `dry_run` only look.

        The scope ``logs`` also cuts the console logs of sheds to their last `log_tail` bytes, 5 MiB when it is None.
        Returns what it was: rows by scope, ``consoles`` for logs that are cut, and ``size_bytes``.
        """
        body = {**dict.fromkeys(scopes, True), "until_seconds": until, "log_tail_bytes": log_tail, "dry_run": dry_run}
        return self._work("POST", "/api/system/prune", on_event, body=body)

    def execute(
        self, name: str, command: list[str], *, env: list[str] | None = None, user: str | None = None
    ) -> Execution:
        """Start `command` in a shed, which is started first when it is stopped; see `Execution.run`."""
        return Execution(self.address, check_shed_name(name), command, env=env, user=user)

    def connect(self, name: str, port: int) -> socket.socket:
        """Return a socket that leads to the TCP port `port` of the shed's loopback, with both halves and resets as in TCP.

        Raises `ConnectError` when nothing listens there, `UnavailableError` (SHED_NOT_RUNNING) for a shed that does not
        run.
        """
        return socket.socket(fileno=upgrade(self.address, "GET", connect_target(name, port), CONNECT).detach())

    def _work(self, method: str, target: str, on_event: Sink, *, body: object = None) -> dict[str, Any]:
        for event in http.events(self.address, method, target, body=body):
            if event.name == "complete":
                return event.data
            if (shown := progress_event(event)) is not None:
                on_event(shown)
        raise http.went_away()


def _logs(name: str, tail: int | None) -> str:
    return shed_target(name, "logs") + ("" if tail is None else f"?tail={tail:d}")


def _quoted(reference: str) -> str:
    if not reference:
        raise UsageError("the name of the image is empty", hint="is a variable in it not set?")
    return quote(os.fsencode(reference), safe="")


def create_body(name: str, **options: object) -> dict[str, object]:
    """Return the request for a new shed; what is None is the server's to choose.

    Raises `UsageError` for a name that is none.
    """
    return {"name": check_shed_name(name), **{key: value for key, value in options.items() if value is not None}}


def progress_event(event: http.Event) -> Event | None:
    """Return what an event of work under way says; None for one that is not known here."""
    data = event.data
    if event.name == "progress":
        phase, message = str(data.get("phase", "")), str(data.get("message", ""))
        return WarningEvent(message) if data.get("warning") else PhaseEvent(phase, message)
    current, total = _count(data.get("current")) or 0, _count(data.get("total"))
    if event.name == "bytes":
        return BytesEvent(str(data.get("label", "")), current, total)
    if event.name == "blob":
        digest, label, status = (str(data.get(key, "")) for key in ("digest", "label", "status"))
        return BlobEvent(digest, label, status, current, total)
    return None


def start_target(name: str, *, cold: bool, force: bool) -> str:
    """Return the path by which a shed is started."""
    query = "&".join(f"{flag}=true" for flag, wanted in (("cold", cold), ("force", force)) if wanted)
    return shed_target(name, "start") + (f"?{query}" if query else "")


def delete_target(name: str, *, force: bool) -> str:
    """Return the path by which a shed is deleted."""
    return shed_target(name) + ("?force=true" if force else "")


def connect_target(name: str, port: int) -> str:
    """Return the path under which a port of a shed is reached, by an upgrade to the protocol `CONNECT`."""
    return shed_target(name, f"connect/{port:d}")


def shed_target(name: str, *more: str) -> str:
    """Return the path of a shed, or of something below it."""
    return "/".join(["/api/sheds", check_shed_name(name), *more])


def items_of(answer: object, key: str) -> list[Any]:
    """Return the list that is the member `key` of an answer."""
    value = answer.get(key) if isinstance(answer, dict) else None
    return value if isinstance(value, list) else []


def object_of(value: object) -> dict[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None
