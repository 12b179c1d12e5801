"""Where Debian packages come from: one suite of a mirror, and its signed index of packages."""

from __future__ import annotations

import email.utils
import hashlib
import lzma
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shed.errors import DataError, NotFoundError, UnavailableError
from shed.run import run

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
"""Overridden by ``SHED_DEBIAN_MIRROR``.  Plain HTTP is enough: what comes from it is checked against a SHA-256 or a
signature.
"""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_OTHER_MIRROR = "name another mirror in SHED_DEBIAN_MIRROR"
_INDEX = "main/binary-{architecture}/Packages.xz"
_TIMEOUT = 60
_CHUNK = 1 << 18
_MAX_RELEASE = 4 << 20
_MAX_INDEX = 256 << 20
"""Most bytes of a release file and of a compressed list of packages: some ten times what Debian has."""
_OLD_ALLOWED = "SHED_DEBIAN_CHECK_VALID_UNTIL"
"""Set to ``no``, a release file may be older than it says it is good for."""
_SNAPSHOT = re.compile(r"/\d{8}T\d{6}Z(/|$)")
"""A mirror with a time in its address, as those of snapshot.debian.org: whoever names it wants what is old."""


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a Debian package, and where it is in the archive."""

    name: str
    version: str
    architecture: str
    path: str
    """File name below the mirror's root."""
    size: int
    sha256: str


@dataclass(slots=True)
class DebianArchive:
    """A suite on a mirror.  The index is downloaded when it is first asked for."""

    mirror: str = field(default_factory=lambda: os.environ.get("SHED_DEBIAN_MIRROR", MIRROR).rstrip("/"))
    suite: str = SUITE
    architecture: str = "amd64"
    keyring: Path = KEYRING
    not_before: int = 0
    """A list of packages from a release before this time, in seconds since the epoch, is a replay of an old one."""
    _index: dict[str, dict[str, str]] | None = None
    _verified: str | None = None

    def fetch(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a file of the mirror.

        Raises `NotFoundError` or `UnavailableError` (MIRROR_UNAVAILABLE).
        """
        url = f"{self.mirror}/{path}"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:  # noqa: S310  # the mirror is a setting of the user's
                while chunk := response.read(_CHUNK):
                    yield chunk
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                raise NotFoundError(f"{url} is not there (404)") from None
            raise UnavailableError(
                f"{url}: the mirror answers {error.code}", code="MIRROR_UNAVAILABLE", hint="try again later"
            ) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise UnavailableError(
                f"cannot download {url}: {reason}",
                code="MIRROR_UNAVAILABLE",
                hint=f"check the network, or {_OTHER_MIRROR}",
            ) from None

    def newest(self, name: str) -> Package:
        """Return the suite's version of the package `name`.  Raises `NotFoundError`."""
        fields = self._fields(name)
        return Package(
            fields["Package"],
            fields["Version"],
            fields["Architecture"],
            fields["Filename"],
            int(fields["Size"]),
            fields["SHA256"],
        )

    def dependencies(self, name: str) -> list[str]:
        """Return the names of the packages that the suite's version of `name` depends on: of alternatives the first."""
        text = self._fields(name).get("Depends", "")
        return [re.split(r"[\s(:|]", part.strip())[0] for part in text.split(",") if part.strip()]

    def released(self) -> int:
        """Return when the suite was last released, in seconds since the epoch."""
        date = _date(self._release(), "Date")
        if date is None:
            raise DataError(f"the release file of {self.suite} has no date")
        return date

    def _fields(self, name: str) -> dict[str, str]:
        if self._index is None:
            self._index = parse_index(self._verified_index().decode())
        if name not in self._index:
            raise NotFoundError(f"Debian {self.suite} has no package {name} for {self.architecture}")
        return self._index[name]

    def _verified_index(self) -> bytes:
        """Return the list of packages, checked against the suite's signature."""
        release = self._release()
        if self.released() < self.not_before and not self._may_be_old():
            raise self._old(f"is of {_day(self.released())}, the pinned packages are of {_day(self.not_before)}")
        path = _INDEX.format(architecture=self.architecture)
        match = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(path)}$", release, re.MULTILINE)
        if match is None:
            raise DataError(f"the release file of {self.suite} does not list {path}")
        data = self._read(f"dists/{self.suite}/{path}", _MAX_INDEX)
        if hashlib.sha256(data).hexdigest() != match[1]:
            raise DataError(
                f"{path} of {self.suite} is not what the release file says",
                hint="the mirror is being updated: try again",
            )
        return lzma.decompress(data)

    def _release(self) -> str:
        """Return the suite's release file: its signature checked, and that it is this suite's and still good."""
        if self._verified is None:
            text = self._signed()
            names = {name: _header(text, name) for name in ("Codename", "Suite")}
            if self.suite not in names.values():
                said = ", ".join(f"{name}: {value!r}" for name, value in names.items())
                raise DataError(
                    f"{self.mirror} has the release file of another suite for {self.suite} ({said})", hint=_OTHER_MIRROR
                )
            until = _date(text, "Valid-Until")
            if until is not None and until < time.time() and not self._may_be_old():
                raise self._old(f"was good until {_day(until)}")
            self._verified = text
        return self._verified

    def _signed(self) -> str:
        """Return the text of the release file, its signature checked."""
        if not self.keyring.exists():
            raise UnavailableError(
                f"{self.keyring} is not there: signatures of Debian cannot be checked",
                code="TOOL_MISSING",
                hint="install the package debian-archive-keyring",
            )
        with tempfile.TemporaryDirectory() as folder:
            signed, text = Path(folder) / "InRelease", Path(folder) / "Release"
            signed.write_bytes(self._read(f"dists/{self.suite}/InRelease", _MAX_RELEASE))
            run(
                ["gpgv", "--quiet", "--keyring", self.keyring, "--output", text, signed],
                hint="install the package gpgv",
            )
            return text.read_text()

    def _may_be_old(self) -> bool:
        return os.environ.get(_OLD_ALLOWED) == "no" or _SNAPSHOT.search(self.mirror) is not None

    def _old(self, why: str) -> DataError:
        """Return the error for a release file that somebody may have kept to offer old packages."""
        hint = f"{_OTHER_MIRROR}; if an old one is what you want: {_OLD_ALLOWED}=no"
        return DataError(f"the release file of {self.suite} on {self.mirror} {why}", code="RELEASE_TOO_OLD", hint=hint)

    def _read(self, path: str, most: int) -> bytes:
        """Return a file of the mirror, of `most` bytes or less.  Raises as `fetch` does, and `DataError`."""
        data = bytearray()
        for chunk in self.fetch(path):
            data += chunk
            if len(data) > most:
                raise DataError(f"{self.mirror}/{path} has more than {most >> 20} MiB", hint=_OTHER_MIRROR)
        return bytes(data)


def _header(text: str, name: str) -> str | None:
    match = re.search(rf"^{name}: (.+)$", text, re.MULTILINE)
    return match[1] if match else None


def _date(text: str, name: str) -> int | None:
    """Return a date of a release file, in seconds since the epoch.  Raises `DataError` for one that cannot be read."""
    value = _header(text, name)
    try:
        return (
            None if value is None else int(email.utils.parsedate_to_datetime(value.replace("UTC", "+0000")).timestamp())
        )
    except ValueError:
        raise DataError(f"the release file has {value!r} for {name}") from None


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def parse_index(text: str) -> dict[str, dict[str, str]]:
    """Return the fields of each package in a ``Packages`` file, by name; of several versions the last.

    Continued lines are dropped.
    """
    packages: dict[str, dict[str, str]] = {}
    for paragraph in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" ")
        )
        if "Package" in fields:
            packages[fields["Package"]] = fields
    return packages
