# Generated from shed/client/aio/client.py: change that one, and run `make sdk`.
"""The Python SDK: `Client`, one server.  ``from shed import Client``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from shed.api import access, server, sheds
from shed.api.eventlog import Event
from shed.api.images import Image, ImageDetails, PrunedImages, Pulled, Pushed, RemovedImage, Step, Verification
from shed.api.prebuilds import Prebuild
from shed.api.secrets import Secret
from shed.api.snapshots import Snapshot
from shed.client.address import Address
from shed.client.commands import Command, Input, Result
from shed.client.messages import tell_warnings
from shed.client.sync import driver
from shed.client.sync.api import Api
from shed.client.sync.shed import Shed
from shed.client.typed import typed
from shed.errors import ShedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Unpack

    from shed.client.options import ShedOptions
    from shed.client.sync.requests import Sink

_TIMEOUT = 600.0
"""Seconds that a create may take which does not say."""


class Client:
    """Talks to one server: the one named, by a URL or a name of the configuration, else that of the command line.

    `token` is shown to a server that is reached over HTTP; without it the one that ``SHED_TOKEN`` or ``~/.shed/tokens``
    holds.  Every method raises a `ShedError`: its `code` is for programs, its message for people.  Each request is a
    connection of its own, so a client may be used for several things at once.
    """

    def __init__(self, server: str | Address | None = None, *, token: str | None = None) -> None:
        self.api = Api(server, token=token)
        """The same requests with plain JSON as results."""

    @property
    def address(self) -> Address:
        """Where the server is."""
        return self.api.address

    def info(self) -> server.Info:
        """Return what the server says of itself."""
        return typed(self.api.info(), server.Info)

    def create(self, name: str | None = None, *, on_event: Sink | None = None, **options: Unpack[ShedOptions]) -> Shed:
        """Create a shed and return it, running.  As the subject of a ``with`` block it is deleted when the block ends.

        Without `name` it gets one of its own.  All that can be asked of it is in `shed.client.options.ShedOptions`.
        Without a `timeout` all is undone after 600 seconds.
        """
        chosen = name or f"sdk-{os.urandom(5).hex()}"
        options.setdefault("timeout", _TIMEOUT)
        try:
            made = self.api.create(chosen, on_event=on_event, **options)
        except BaseException as error:
            if name is None and not isinstance(error, ShedError):  # interrupted: the server would go on, for nobody
                with contextlib.suppress(ShedError):
                    driver.shielded(self.api.delete, chosen, force=True)
            raise
        return Shed(self, typed(made, sheds.Shed), ours=True)

    def run(
        self,
        command: Command,
        *,
        stdin: Input = None,
        cwd: str | None = None,
        user: str | None = None,
        limit: float | None = None,
        check: bool = False,
        **options: Unpack[ShedOptions],
    ) -> Result:
        """Run a command in a shed of its own, and return what it did.

        The server deletes the shed then, and also when this program ends meanwhile, however it ends.  The command is as
        for `Shed.exec`, and has `limit` seconds; `options` are those of `create`, the variables of `env` included.
        """
        options.setdefault("timeout", _TIMEOUT)
        with self.api.attached(f"run-{os.urandom(5).hex()}", **options) as made:
            shed = Shed(self, typed(made, sheds.Shed))
            return shed.exec(command, stdin=stdin, cwd=cwd, user=user, timeout=limit, check=check)

    def get(self, name: str) -> Shed:
        """Return a shed that exists.  Raises `NotFoundError` (SHED_NOT_FOUND)."""
        return Shed(self, typed(self.api.shed(name), sheds.Shed))

    def sessions(self, *, on_event: Sink | None = None) -> list[sheds.Session]:
        """Return the tmux sessions in all running sheds; `on_event` gets a warning for each that cannot be asked."""
        return typed(self.api.all_sessions(on_event=on_event), list[sheds.Session])

    def images(self, *, on_event: Sink | None = None) -> list[Image]:
        """Return the images in the server's store."""
        return typed(self.api.images(on_event=on_event), list[Image])

    def image(self, image: str) -> ImageDetails:
        """Return all that is known of an image, named by a tag, a digest, or the reference it was pulled by."""
        return typed(self.api.image(image), ImageDetails)

    def image_history(self, image: str) -> list[Step]:
        """Return the steps that made an image, the last one first."""
        return typed(self.api.image_history(image), list[Step])

    def snapshots(self, *, on_event: Sink | None = None) -> list[Snapshot]:
        """Return the server's snapshots."""
        return typed(self.api.snapshots(on_event=on_event), list[Snapshot])

    def snapshot(self, name: str) -> Snapshot:
        """Return a snapshot.  Raises `NotFoundError` (SNAPSHOT_NOT_FOUND)."""
        return typed(self.api.snapshot(name), Snapshot)

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot; sheds that were made from it keep what they have."""
        self.api.remove_snapshot(name)

    def prebuilds(self, *, on_event: Sink | None = None) -> list[Prebuild]:
        """Return the server's prebuilds."""
        return typed(self.api.prebuilds(on_event=on_event), list[Prebuild])

    def create_prebuild(
        self,
        name: str,
        commands: Sequence[str],
        *,
        limit: float | None = None,
        every: float | None = None,
        on_event: Sink | None = None,
        **options: Unpack[ShedOptions],
    ) -> Prebuild:
        """Make a shed ready by `commands`, and keep it for others: ``create(prebuild=name)``.

        They are run by ``sh -ec`` and have `limit` seconds together.  With `every` the server builds it anew after so
        many seconds.  `options` are those of `create`.
        """
        made = self.api.create_prebuild(name, commands, limit=limit, every=every, on_event=on_event, **options)
        return typed(made, Prebuild)

    def build_prebuild(self, name: str, *, on_event: Sink | None = None) -> Prebuild:
        """Build a prebuild anew; until that is done the earlier one is used."""
        return typed(self.api.build_prebuild(name, on_event=on_event), Prebuild)

    def remove_prebuild(self, name: str) -> None:
        """Remove a prebuild; sheds that were made from it keep what they have."""
        self.api.remove_prebuild(name)

    def pull(
        self,
        reference: str,
        *,
        tag: str | None = None,
        platform: str | None = None,
        with_layers: bool = False,
        insecure: bool = False,
        detach: bool = False,
        trust_kernel: bool = False,
        on_event: Sink | None = None,
    ) -> Pulled:
        """Have the server pull an image and call it `tag`, or by the last part of its path.

        The pull ends when this program does, unless it is to `detach`.
        """
        done = self.api.pull_image(
            reference,
            tag=tag,
            platform=platform,
            with_layers=with_layers,
            insecure=insecure,
            detach=detach,
            trust_kernel=trust_kernel,
            on_event=on_event,
        )
        return typed(done, Pulled)

    def push(self, image: str, destination: str, *, insecure: bool = False, on_event: Sink | None = None) -> Pushed:
        """Have the server push an image to `destination`, ``registry/repository[:tag]``."""
        return typed(self.api.push_image(image, destination, insecure=insecure, on_event=on_event), Pushed)

    def tag(self, image: str, name: str) -> str:
        """Have the server call an image `name`, too; return its digest."""
        return self.api.tag_image(image, name)

    def trust(self, image: str) -> list[str]:
        """Let the kernel and the initrd that an image brings boot on the server from now on; return their digests."""
        return self.api.trust_image(image)

    def verify(self, image: str, *, deep: bool = False, on_event: Sink | None = None) -> Verification:
        """Have the server read an image again, with `deep` compare it with its layers."""
        return typed(self.api.verify_image(image, deep=deep, on_event=on_event), Verification)

    def remove_image(self, image: str) -> RemovedImage:
        """Remove a tag, or all names of the image with this reference or digest."""
        return typed(self.api.remove_image(image), RemovedImage)

    def prune_images(self, *, dry_run: bool = False) -> PrunedImages:
        """Remove what nobody needs from the server's store; with `dry_run` only look."""
        return typed(self.api.prune_images(dry_run=dry_run), PrunedImages)

    def usage(self) -> server.Usage:
        """Return what the server's data takes up."""
        return typed(self.api.usage(), server.Usage)

    def prune(
        self,
        scopes: list[str] | None = None,
        *,
        until: float = 72 * 3600.0,
        log_tail: int | None = None,
        dry_run: bool = False,
        on_event: Sink | None = None,
    ) -> server.Pruned:
        """Delete what has not been used for `until` seconds; with `dry_run` only look.

        `scopes` are of ``instances``, ``images``, ``orphans``, ``templates`` and ``logs``: all but the last without it.
        The scope ``logs`` also cuts the console logs of sheds to their last `log_tail` bytes.
        """
        done = self.api.clean(scopes or [], until=until, log_tail=log_tail, dry_run=dry_run, on_event=on_event)
        return typed(done, server.Pruned)

    def events(
        self, *, shed: str | None = None, kinds: list[str] | None = None, tail: int | None = None
    ) -> list[Event]:
        """Return what has happened on the server lately, the last `tail` of it: see `follow_events`."""
        return typed(self.api.events(shed=shed, kinds=kinds, tail=tail), list[Event])

    def follow_events(
        self, *, shed: str | None = None, kinds: list[str] | None = None, tail: int | None = 0
    ) -> Iterator[Event]:
        """Yield the last `tail` events, and then others as they happen, until the iterator is closed.

        `kinds` are as ``egress.refused``, or groups: ``shed``, ``egress``.  Raises `UnavailableError` when the server
        ends.
        """
        for event in self.api.follow_events(shed=shed, kinds=kinds, tail=tail):
            if event:
                yield typed(event, Event)

    def secrets(self, *, on_event: Sink | None = None) -> list[Secret]:
        """Return the secrets that sheds can be given, without their values."""
        answer = self.api.secrets()
        tell_warnings(answer, on_event)
        return typed(answer["secrets"], list[Secret])

    def set_secret(
        self,
        name: str,
        *,
        hosts: list[str] | None = None,
        variable: str | None = None,
        header: str | None = None,
        methods: list[str] | None = None,
        paths: list[str] | None = None,
        value: str | None = None,
        from_file: str | None = None,
        from_env: str | None = None,
        from_command: str | None = None,
    ) -> Secret:
        """Keep a secret for `hosts`, or have one that there is get another value; return what may be seen of it.

        The value is exactly one of `value`, what is in a file or an environment variable of the server, and what a
        command prints there.  In a shed, the environment variable `variable` has a placeholder, which the relay
        replaces in requests with one of `methods` to one of `paths`; with a `header` (``Authorization: Bearer {}``) it
        sets that.
        """
        kept = self.api.set_secret(
            name,
            hosts=hosts,
            variable=variable,
            header=header,
            methods=methods,
            paths=paths,
            value=value,
            from_file=from_file,
            from_env=from_env,
            from_command=from_command,
        )
        return typed(kept, Secret)

    def remove_secret(self, name: str, *, force: bool = False) -> None:
        """Remove a secret; with `force` it is taken from the sheds that have it."""
        self.api.remove_secret(name, force=force)

    def tokens(self) -> list[access.Token]:
        """Return the tokens of the server's TCP port, without their secrets."""
        return typed(self.api.tokens(), list[access.Token])

    def create_token(
        self, name: str, *, right: str = "use", expires_in: float | None = None
    ) -> tuple[access.Token, str]:
        """Make a token; return it with its secret.  `right` is ``read``, ``use`` or ``admin``, `expires_in` seconds."""
        made, secret = self.api.create_token(name, right=right, expires_in=expires_in)
        return typed(made, access.Token), secret

    def revoke_token(self, name: str) -> None:
        """Make a token invalid."""
        self.api.revoke_token(name)

    def ssh_keys(self) -> list[access.SshKey]:
        """Return the keys that the server lets in by SSH, without those of its configuration."""
        return typed(self.api.ssh_keys(), list[access.SshKey])

    def add_ssh_key(self, line: str) -> str:
        """Have the server let in a public key; return its fingerprint."""
        return self.api.add_ssh_key(line)

    def remove_ssh_key(self, fingerprint: str) -> None:
        """Have the server let in a key no more, from the next connection on."""
        self.api.remove_ssh_key(fingerprint)

    def list(self, *, on_event: Sink | None = None) -> list[Shed]:
        """Return all sheds of the server; `on_event` gets a warning for each one whose records cannot be read."""
        return [Shed(self, shed) for shed in typed(self.api.sheds(on_event=on_event), list[sheds.Shed])]
