"""Authorization: answering a registry's challenge with Basic credentials or with a token fetched for a scope.

Source: https://distribution.github.io/distribution/spec/auth/token/ and /oauth/.  Credentials go to the registry itself
and to the token realm it names, that one over HTTPS (or to this machine) only.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from shed.errors import RegistryError
from shed.oci.fields import Fields, decode_object
from shed.oci.registry.credentials import Credentials
from shed.oci.registry.errors import refused
from shed.oci.registry.transport import WRONG, Transport, resolve

_CLIENT_ID = "shed"
_SHORTEST_LIFE = 60.0
"""Seconds a token lives that does not say, as in the specification."""
_MARGIN = 0.9
"""Part of its life for which a token is used."""
_MAX_ANSWER = 1 << 20
_MAX_CHALLENGE = 8 << 10
"""Most characters of a challenge; of a longer one nothing is read."""
_MAX_TOKEN = 32 << 10
_LONGEST_LIFE = 86400.0
_TOKEN = re.compile(r"[!-~]+")
_SCHEME = re.compile(r"[\s,]*([A-Za-z]+)(?:\s+|$|(?=,))")
_PARAMETER = re.compile(r'[\s,]*([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way of authorization that a registry offers: ``basic`` or ``bearer``, and its parameters."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Return the challenges in a WWW-Authenticate header (RFC 9110, 11.6.1)."""
    found: list[Challenge] = []
    position = len(header) if len(header) > _MAX_CHALLENGE else 0
    while position < len(header):
        if found and (parameter := _PARAMETER.match(header, position)):
            name, quoted, bare = parameter.groups()
            found[-1].parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
            position = parameter.end()
        elif scheme := _SCHEME.match(header, position):
            found.append(Challenge(scheme[1].lower(), {}))
            position = scheme.end()
        else:
            break
    return found


class Authenticator:
    """Authorization for one registry; usable by several threads."""

    def __init__(self, host: str, credentials: Credentials, transport: Transport) -> None:
        self._host = host
        self._credentials = credentials
        self._transport = transport
        self._basic = False
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        """By scopes: the header, and the monotonic time until which it is used."""
        self._lock = threading.Lock()

    def header(self, scopes: tuple[str, ...]) -> str | None:
        """Return the Authorization header for a request, as far as it is known without a challenge."""
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        if self._basic:
            return self._credentials.basic
        header, until = self._tokens.get(scopes, (None, 0.0))
        return header if time.monotonic() < until else None

    def answer(self, challenge: str, scopes: tuple[str, ...], used: str | None) -> bool:
        """Prepare for a registry that answered 401 to a request with the header `used`.

        Return whether another try makes sense.

        Raises `RegistryError` when the token server refuses, and `TransientError`.
        """
        offered = {item.scheme: item.parameters for item in reversed(parse_challenges(challenge))}
        with self._lock:
            if self.header(scopes) not in (None, used):  # another thread was quicker
                return True
            if "bearer" in offered and not self._credentials.registry_token:
                self._tokens[scopes] = self._fetch(offered["bearer"], scopes)
                return True
            if "basic" in offered and self._credentials.basic and not self._basic:
                self._basic = True
                return True
        return False

    def _fetch(self, parameters: dict[str, str], scopes: Sequence[str]) -> tuple[str, float]:
        realm = parameters.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise RegistryError(f"{self._host} names no token server: {realm[:100]!r}", hint=WRONG)
        realm = resolve(self._transport.base, realm)
        place = urlsplit(realm)
        if place.scheme == "http" and not self._transport.plain_allowed(place.netloc):
            raise RegistryError(f"{self._host} wants credentials sent without encryption to {place.netloc}", hint=WRONG)
        wanted = list(dict.fromkeys([*scopes, *parameters.get("scope", "").split()]))
        service = [("service", parameters["service"])] if parameters.get("service") else []
        what = f"a token for {' '.join(wanted)}"
        secret = self._credentials
        if secret.identity_token:
            form = [("grant_type", "refresh_token"), *service, ("client_id", _CLIENT_ID), ("scope", " ".join(wanted))]
            body = urlencode([*form, ("refresh_token", secret.identity_token)]).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._transport.send(what, "POST", realm, headers, body=body, redirects=False)
        else:
            query = urlencode([*service, *(("scope", scope) for scope in wanted)])
            url = f"{realm}{'&' if place.query else '?'}{query}"
            answer = self._transport.send(
                what, "GET", url, {"Authorization": secret.basic} if secret.basic else {}, redirects=False
            )
        with answer:
            data = answer.read(_MAX_ANSWER)
            if answer.status != 200:
                raise refused(place.netloc, what, answer.status, data)
        fields = Fields(decode_object(data, f"the answer of {place.netloc}"), f"the answer of {place.netloc}")
        token = fields.text("token", "") or fields.text("access_token", "")
        if not _TOKEN.fullmatch(token) or len(token) > _MAX_TOKEN:
            raise RegistryError(f"{place.netloc} gave no token for {self._host}", hint=WRONG)
        life = fields.value.get("expires_in")
        seconds = float(min(life, _LONGEST_LIFE)) if isinstance(life, int | float) and life > 0 else _SHORTEST_LIFE
        return f"Bearer {token}", time.monotonic() + seconds * _MARGIN
