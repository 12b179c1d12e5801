"""The Python SDK: `Client` for servers, `Shed` for one shed.  ``from shed import Client``."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from shed.client import client as api
from shed.client import commands
from shed.client.address import Address
from shed.client.client import Sink
from shed.client.commands import Command, Input, Process, Result, content_of
from shed.client.execution import Execution
from shed.client.models import Shed as Info
from shed.errors import NotFoundError, ShedError

RUNTIME = "/run/shed-runtime/bin/busybox"
"""Works in every image."""
READ = [RUNTIME, "cat", "--"]
WRITE = """set -e
d=$(dirname -- "$1"); mkdir -p -- "$d"; t=$(mktemp -p "$d" .shed.XXXXXX)
trap 'rm -f -- "$t"' EXIT
cat > "$t"; chmod "$2" "$t"; mv -f -- "$t" "$1"; trap - EXIT"""
"""Writes standard input to the file $1 with mode $2: beside it first, so that nobody sees half of it."""


def new_name(name: str | None) -> str:
    """Return `name`, or one that nobody uses."""
    return name or f"sdk-{secrets.token_hex(5)}"


def absolute(folder: str | os.PathLike[str] | None) -> str | None:
    """Return the absolute path of a folder, its links as they are written."""
    return None if folder is None else os.path.abspath(folder)  # noqa: PTH100


def ignore(event: object) -> None:
    """The sink of work that nobody watches."""


class Client:
    """Talks to one server: the one named (a URL, or a name from ``~/.shed/config.yaml``), else the one that the command line would use.

    `token` is shown to a server that is reached over HTTP; without it the one that ``SHED_TOKEN`` or ``~/.shed/tokens``
    holds.

    Every method raises a `ShedError`: its `code` is for programs, its message for people.  It may be used by several
    threads.
    """

    def __init__(self, server: str | None = None, *, token: str | None = None) -> None:
        self.api = api.Client(server, token=token)
        """The server's API, one method for each of its requests."""

    @property
    def address(self) -> Address:
        """Where the server is."""
        return self.api.address

    def info(self) -> dict[str, Any]:
        """Return what the server says of itself."""
        return self.api.info()

    def create(
        self,
        name: str | None = None,
        *,
        image: str | None = None,
        cpus: int | None = None,
        memory_mb: int | None = None,
        upper_size_bytes: int | None = None,
        local_dir: str | os.PathLike[str] | None = None,
        local_dir_mode: str | None = None,
        timeout: float | None = 600.0,
        cold: bool = False,
        force: bool = False,
        on_event: Sink = ignore,
    ) -> Shed:
        """Create a shed and return it, running.  As the subject of a ``with`` block it is deleted when the block ends.

        Without `name` it gets one of its own.  `local_dir` is a folder of the server's machine, mounted at
        ``/workspace``, which may be written (`local_dir_mode` ``rw``), also git's settings and hooks (``git-rw``), or
        only be read (``ro``).  What is None is the server's to choose; after `timeout` seconds the server gives up and
        undoes all.  `cold` has its VM booted, whatever it could be restored from; `force` has it started on a host that
        is short of memory, too.
        """
        chosen = new_name(name)
        try:
            info = self.api.create(
                chosen,
                image=image,
                cpus=cpus,
                memory_mb=memory_mb,
                upper_size_bytes=upper_size_bytes,
                local_dir=absolute(local_dir),
                local_dir_mode=local_dir_mode,
                timeout=timeout,
                cold=cold,
                force=force,
                on_event=on_event,
            )
        except BaseException as error:
            if name is None and not isinstance(error, ShedError):  # interrupted: the server would go on, for nobody
                with contextlib.suppress(ShedError):
                    self.api.delete(chosen, force=True)
            raise
        return Shed(self, info, ours=True)

    def get(self, name: str) -> Shed:
        """Return a shed that exists.  Raises `NotFoundError` (SHED_NOT_FOUND)."""
        return Shed(self, self.api.shed(name))

    def images(self) -> list[dict[str, Any]]:
        """Return the images in the server's store."""
        return self.api.images()

    def pull(
        self, reference: str, *, tag: str | None = None, detach: bool = False, on_event: Sink = ignore
    ) -> dict[str, Any]:
        """Have the server pull an image; return its tag and digest.

        The pull ends when this program does, unless it is to `detach`.
        """
        return self.api.pull_image(reference, tag=tag, detach=detach, on_event=on_event)

    def list(self) -> list[Shed]:
        """Return all sheds of the server."""
        return [Shed(self, info) for info in self.api.sheds()]


class Shed:
    """One shed.  As the subject of a ``with`` block it is deleted at its end when `Client.create` made it."""

    def __init__(self, client: Client, info: Info, *, ours: bool = False) -> None:
        self._client = client
        self._ours = ours
        self.name = info.name
        self.info = info
        """What the server said last: see `refresh`."""

    def __repr__(self) -> str:
        return f"<Shed {self.name} on {self._client.address}: {self.info.status}>"

    def __enter__(self) -> Shed:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._ours:
            try:
                self.delete(missing_ok=True)
            except ShedError:
                if kind is None:  # else what happened in the block matters more
                    raise

    @property
    def status(self) -> str:
        """Return the status, as the server said last: ``running``, ``stopped``, ``starting`` or ``error``."""
        return self.info.status

    def refresh(self) -> Shed:
        """Ask the server how the shed is now."""
        self.info = self._client.api.shed(self.name)
        return self

    def start(self, *, cold: bool = False, force: bool = False) -> None:
        """Start it; its files are those it had.  `cold` and `force` as for `Client.create`."""
        self.info = self._client.api.start(self.name, cold=cold, force=force)

    def stop(self) -> None:
        """Stop it; its files stay."""
        self.info = self._client.api.stop(self.name)

    def delete(self, *, missing_ok: bool = False) -> None:
        """Delete it and its files, also while it runs."""
        try:
            self._client.api.delete(self.name, force=True)
        except NotFoundError:
            if not missing_ok:
                raise

    def logs(self) -> str:
        """Return the text on its console since its last start."""
        return self._client.api.logs(self.name)

    def exec(
        self,
        command: Command,
        *,
        stdin: Input = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> Result:
        """Run a command to its end and return what it did; a stopped shed is started first.

        A list holds words that arrive as they are; a text is run by ``sh -c``.  `stdin` is bytes, text, or an open
        file.  With `check`, an exit code other than 0 raises `CommandError`; after `timeout` seconds the command is
        killed and `CommandTimeoutError` raised.
        """
        words = commands.words_of(command)
        result = commands.run(lambda: self._execution(words, env, cwd, user), words, stdin, timeout)
        return result.check() if check else result

    def popen(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        merge: bool = False,
    ) -> Process:
        """Start a command and return it with its pipes.

        With `merge`, its standard error comes with its standard output.
        """
        words = commands.words_of(command)
        return Process(lambda: self._execution(words, env, cwd, user), merge=merge)

    def read_file(self, path: str, *, user: str | None = None) -> bytes:
        """Return the content of a file; a path that does not begin with ``/`` is one in the workspace."""
        return content_of(self.exec([*READ, path], user=user), path)

    def write_file(self, path: str, content: bytes | str, *, mode: int = 0o644, user: str | None = None) -> None:
        """Write a file in one step, and make the folders that lead to it."""
        self.exec([RUNTIME, "sh", "-c", WRITE, "sh", path, f"{mode:o}"], stdin=content, user=user, check=True)

    def upload(self, source: str | os.PathLike[str], target: str, *, user: str | None = None) -> None:
        """Copy a file or folder of this machine into the shed, by the rules of ``shed cp`` and ``docker cp``."""
        self._copy(("", os.fspath(source)), (self.name, target), user)

    def download(self, source: str, target: str | os.PathLike[str], *, user: str | None = None) -> None:
        """Copy a file or folder of the shed to this machine, by the rules of ``shed cp`` and ``docker cp``."""
        self._copy((self.name, source), ("", os.fspath(target)), user)

    def connect(self, port: int) -> socket.socket:
        """Return a socket that leads to a TCP port of the shed's loopback.

        Raises `ConnectError` when nothing listens there.
        """
        return self._client.api.connect(self.name, port)

    @contextlib.contextmanager
    def forward(self, port: int, *, local: int = 0) -> Iterator[int]:
        """Have a port of this machine's loopback lead to a port of the shed while the block lasts.

        Yields the local port.
        """
        from shed.client.background import forwarded  # noqa: PLC0415  asyncio, for those who need it

        with forwarded(self._client.address, self.name, port, local) as chosen:
            yield chosen

    def _execution(
        self, words: list[str], env: Mapping[str, str] | None, cwd: str | None, user: str | None
    ) -> Execution:
        assignments = commands.assignments(env)
        return Execution(self._client.address, self.name, words, env=assignments, working_dir=cwd, user=user)

    def _copy(self, source: tuple[str, str], target: tuple[str, str], user: str | None) -> None:
        copy(self._client.address, source, target, user)


def copy(address: Address, source: tuple[str, str], target: tuple[str, str], user: str | None) -> None:
    """Copy between this machine and a shed; the places are names, empty for this machine, and paths."""
    from shed.client.copying import Copy, Place  # noqa: PLC0415  tarfile, for those who need it

    Copy(lambda name: address, Place(*source), Place(*target), user=user, on_event=ignore).run()
