"""Repositories that sheds are made with: which URLs there are, and the rule by which a shed may reach one's host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from shed.egress.rules.policy import Policy, Profile, normal_name
from shed.errors import UsageError

PROFILE = "repository"
"""What the rule for the host of a shed's repository is called, in logs and in what a shed is told."""
_LONGEST = 2048
_SHORT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+")
_PATH = r"(?:[A-Za-z0-9._~/+:,=-]|%[2-7][0-9A-Fa-f])+"
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)"
_HTTPS = re.compile(rf"https://{_HOST}(?::([0-9]{{1,5}}))?/{_PATH}")
_SSH = re.compile(rf"ssh://(?:[A-Za-z0-9_][A-Za-z0-9_.+-]*@)?{_HOST}(?::([0-9]{{1,5}}))?/{_PATH}")
_SCP = re.compile(rf"(?:[A-Za-z0-9_][A-Za-z0-9_.+-]*@)?{_HOST}:(?!-)[A-Za-z0-9._~/+,=-]+")
_REF = re.compile(r"(?![-./])(?!.*(?:\.\.|//|@\{|/\.|\.lock(?:/|$)))[^\s\x00-\x20\x7f~^:?*\[\\]{1,255}(?<![./])")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PORTS = {"https": 443, "ssh": 22}
_SHAPES = (
    "https://HOST/PATH, ssh://USER@HOST/PATH, USER@HOST:PATH or OWNER/NAME, and if need be #BRANCH, #TAG or #COMMIT"
)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository that a shed clones."""

    url: str
    """Without a password, or anything else that opens it."""
    ref: str
    """A branch, a tag or a whole commit id; empty: what the repository says."""
    host: str
    """Its name in the normal spelling, or its address."""
    port: int
    ssh: bool

    @classmethod
    def parse(cls, text: str, base_url: str) -> Repository:
        """Return what ``URL[#REF]`` names; ``OWNER/NAME`` is below `base_url`.

        Raises `UsageError` (INVALID_REPO_URL), which tells nothing of the URL: there may be a password in it.
        """
        url, _, ref = text.partition("#")
        if ref and not _REF.fullmatch(ref):
            raise _wrong("what is behind # is not the name of a branch or a tag, or the id of a commit")
        if _SHORT.fullmatch(url):
            url = f"https://{url}" if "." in url.partition("/")[0] and url.count("/") > 1 else f"{base_url}/{url}"
        scheme = url.partition("://")[0].lower() if "://" in url else ""
        if scheme == "file" or url.startswith(("/", ".", "~")):
            raise _wrong(
                "a repository of the server's machine is not cloned: git would have to run there, in a folder that "
                "may say what it runs",
                hint="share the folder: --local-dir DIR; or bundle it, and clone that in the shed: "
                "git bundle create repo.bundle --all && shed cp repo.bundle NAME:",
            )
        if scheme in {"http", "git"}:
            raise _wrong(f"nobody vouches for what comes over {scheme}://", hint="use https:// or ssh://")
        authority = re.split(r"[/\\?]", url.partition("://")[2] if scheme else url, maxsplit=1)[0]
        if "@" in authority and (scheme == "https" or ":" in authority.rpartition("@")[0]):
            raise _wrong(
                "the URL has a user or a password in it, which would be kept in the shed",
                hint="leave out what is before the @, and give the shed a secret that is put in on the way: "
                "shed secret set NAME --host HOST, then shed create --secret NAME --repo https://HOST/PATH",
            )
        found = (_HTTPS if scheme == "https" else _SSH if scheme == "ssh" else _SCP).fullmatch(url)
        if found is None or len(text) > _LONGEST:
            raise _wrong("this is not the URL of a repository that a shed can clone")
        ssh = scheme != "https"
        port = int(found[2]) if found.re is not _SCP and found[2] else _PORTS["ssh" if ssh else "https"]
        try:
            host = _host(found[1])
        except ValueError as error:
            raise _wrong(str(error)) from None
        if not 1 <= port <= 65535:
            raise _wrong(f"{port} is not a port")
        return cls(url, ref, host, port, ssh)

    def __str__(self) -> str:
        return f"{self.url}#{self.ref}" if self.ref else self.url

    @property
    def is_commit(self) -> bool:
        """Say whether it is one commit that is wanted, and no branch or tag."""
        return _COMMIT.fullmatch(self.ref) is not None

    @property
    def place(self) -> str:
        """Return its host and port, as a shed's record keeps them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """Return its host and port as the URL has them, the usual port left out."""
        return self.place.removesuffix(f":{_PORTS['ssh' if self.ssh else 'https']}")

    def is_opened_by(self, profiles: Iterable[Profile]) -> bool:
        """Say whether a rule for its host would be of no use: it is allowed already, or denied by name."""
        policy = Policy.of(profiles)
        if (address := _address(self.host)) is not None:
            verdict = policy.about_address(address, self.port, named=False)
        else:
            verdict = policy.about_name(self.host, self.port)
        return verdict.allowed or not verdict.lacks


def profile(place: str) -> Profile:
    """Return the profile that opens ``HOST:PORT``, and nothing else.  Raises `UsageError`."""
    host, _, port = place.rpartition(":")
    ports = [int(port)] if port.isdecimal() and len(port) <= 5 else []
    return Profile.parse(PROFILE, {"rules": [{"allow": host.strip("[]"), "ports": ports}]})


def _host(text: str) -> str:
    address = _address(text.strip("[]"))
    return normal_name(text) if address is None else str(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _wrong(why: str, hint: str | None = None) -> UsageError:
    return UsageError(why, code="INVALID_REPO_URL", hint=hint or f"write {_SHAPES}")
