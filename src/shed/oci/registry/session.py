"""Requests about one repository, with authorization as its registry wants it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from shed.errors import RegistryError
from shed.oci.digest import Digest, short
from shed.oci.registry.auth import Authenticator
from shed.oci.registry.credentials import Credentials, find_credentials
from shed.oci.registry.errors import WAITS, refused
from shed.oci.registry.reference import Reference
from shed.oci.registry.transport import WRONG, Answer, Body, Transport, resolve, same_origin

MAX_ERROR = 1 << 16
"""Bytes read of an answer that should be empty or an error."""


class Session:
    """The repository of `reference`, as `Repository` and its helpers talk to it."""

    def __init__(
        self,
        reference: Reference,
        *,
        push: bool = False,
        insecure: bool = False,
        credentials: Credentials | None = None,
        private_hosts: Collection[str] = (),
        waits: Sequence[float] = WAITS,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        transport = Transport(reference.host, insecure=insecure, private_hosts=private_hosts, waits=waits, sleep=sleep)
        credentials = find_credentials(reference) if credentials is None else credentials
        self.reference = reference
        self.retried = transport.retried
        self.abort = transport.abort
        self.close = transport.close
        self._transport = transport
        self._scope = f"repository:{reference.repository}:{'pull,push' if push else 'pull'}"
        self._auth = Authenticator(reference.registry, credentials, transport)

    @property
    def base(self) -> str:
        """The repository's URL; see `Transport.base`."""
        return f"{self._transport.base}/v2/{self.reference.repository}"

    def what_manifest(self, target: str) -> str:
        """Return what to call the manifest with this tag or digest."""
        return f"manifest {self.reference.repository}{'@' if ':' in target else ':'}{target}"

    def what_blob(self, digest: Digest) -> str:
        """Return what to call a blob."""
        return f"blob {short(digest)} of {self.reference.repository}"

    def send(
        self,
        what: str,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: Body | bytes | None = None,
        scopes: tuple[str, ...] = (),
    ) -> Answer:
        """Send one request and return the answer, which may be anything but 5xx and 429.

        `scopes` are needed besides the repository's own.

        Raises `TransientError`, and `RegistryError` when there are no credentials or they do not suffice.
        """
        scopes = (self._scope, *scopes)
        for last in (False, True):
            authorization = self._auth.header(scopes) if same_origin(url, self.base) else None
            with_it = {**(headers or {}), **({"Authorization": authorization} if authorization else {})}
            answer = self._transport.send(what, method, url, with_it, body=body)
            if answer.status != 401 or last or not same_origin(answer.url, self.base):
                break
            with answer:
                detail = answer.read(MAX_ERROR)
            if not self._auth.answer(answer.headers.get("WWW-Authenticate", ""), scopes, authorization):
                raise refused(self.reference.registry, what, 401, detail)
        return answer

    def expect(self, what: str, answer: Answer, *statuses: int) -> None:
        """Raise what `answer` means unless it has one of `statuses`."""
        if answer.status not in statuses:
            raise refused(self.reference.registry, what, answer.status, answer.read(MAX_ERROR))

    def location(self, answer: Answer) -> str:
        """Return where an upload goes on, which the registry may say in full or from its root."""
        location = answer.headers.get("Location")
        if not location:
            raise RegistryError(f"{self.reference.registry} does not say where to upload", hint=WRONG)
        return resolve(answer.url, location)
