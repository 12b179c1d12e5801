"""The `configure` request, checked.

    name        of the shed
    hostname    default: the name
    timezone    as Europe/Berlin, where the image knows that; empty: as the image has it
    network     {"address": "10.0.2.15/24", "gateway", "dns", "mac"} or null: none
    mounts      [{"tag", "target", "readonly", "source"}]: folders of the host, over 9P; with a source, what is there in
                the one with this tag
    disks       sizes in bytes of the upper and of the root, as far as they are known: a restored machine remembers
                others
    clock       seconds since 1970; entropy: base64 of 32 bytes or more
    init        "auto", "agent" or "systemd"
    image_user  whom commands run as when they do not say, as the image has it
    user        the same where the image does not say, if the image has that user
    workspace   where commands start; made when it is not there
    folder      where they start if it is there, before the workspace
    env         variables of every command
    variables   more variables, which may change while the shed runs, as may what follows
    authorities [{"id", "pem", "subject"}]: certificates of authorities to trust; a name for their files, and the hash
                of the subject by which OpenSSL looks for it
    apt         lines of an apt.conf

Unknown members are ignored: a newer server may say more.
"""

from __future__ import annotations

import binascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Part = TypeVar("Part")

INIT_MODES = ("auto", "agent", "systemd")


class Network:
    """An address with its prefix length, the way out, who answers names, and the card's own address: empty as it is."""

    __slots__ = ("address", "dns", "gateway", "mac", "prefix")

    def __init__(self, value: object) -> None:
        address, slash, prefix = text(value, "address").partition("/")
        if not slash or not prefix.isdecimal() or int(prefix) > 32:
            raise ValueError("address must be IPv4/PREFIX")
        self.address = address
        self.prefix = int(prefix)
        self.gateway = text(value, "gateway", "")
        self.dns = text(value, "dns", "")
        try:
            self.mac = bytes.fromhex(text(value, "mac", "").replace(":", ""))
        except ValueError:
            raise ValueError("mac must be hexadecimal digits") from None
        if len(self.mac) not in {0, 6}:
            raise ValueError("mac must be six bytes")

    def is_like(self, other: Network | None) -> bool:
        """Tell whether a card that is set up for one is so for the other, but for its MAC."""
        if other is None:
            return False
        return (self.address, self.prefix, self.gateway) == (other.address, other.prefix, other.gateway)


class Mount:
    """A host folder to mount by its 9P tag, or a folder in that."""

    __slots__ = ("readonly", "source", "tag", "target")

    def __init__(self, value: object) -> None:
        self.tag = text(value, "tag")
        self.target = text(value, "target")
        if not self.target.startswith("/") or self.target == "/" or "," in self.tag:
            raise ValueError(f"{self.tag!r} at {self.target!r} is not a tag and an absolute folder")
        self.source = text(value, "source", "")
        self.readonly = isinstance(value, dict) and value.get("readonly") is True


class Authority:
    """A certificate to trust."""

    __slots__ = ("id", "pem", "subject")

    def __init__(self, value: object) -> None:
        self.id = text(value, "id")
        self.pem = text(value, "pem")
        self.subject = text(value, "subject")
        if not all(word.replace("-", "").isalnum() for word in (self.id, self.subject)):
            raise ValueError("id and subject must be letters, digits and '-'")


class Request:
    """What to make of this machine."""

    def __init__(self, value: dict[str, object]) -> None:
        """Raises `ValueError` that names the member that is wrong."""
        self.name = text(value, "name")
        self.hostname = text(value, "hostname", self.name)
        self.timezone = text(value, "timezone", "")
        if self.timezone.startswith("/") or ".." in self.timezone:
            raise ValueError("timezone: must be the name of one")
        self.network = _part("network", Network, value["network"]) if value.get("network") is not None else None
        self.mounts = mounts(value)
        self.disks = _sizes(value.get("disks"))
        self.clock = value.get("clock")
        self.entropy = _base64(text(value, "entropy", ""))
        self.init = text(value, "init", "auto")
        if self.init not in INIT_MODES:
            raise ValueError(f"init: {self.init!r} is none of {', '.join(INIT_MODES)}")
        self.user = text(value, "user", "shed")
        self.image_user = text(value, "image_user", "")
        self.folder = text(value, "folder", "")
        self.workspace = text(value, "workspace", "/workspace")
        for key, folder in (("workspace", self.workspace), ("folder", self.folder or "/")):
            if not folder.startswith("/"):
                raise ValueError(f"{key}: must be an absolute folder")
        self.env = texts(value, "env")
        self.variables = texts(value, "variables")
        self.authorities = authorities(value)
        self.apt = text(value, "apt", "")


def mounts(value: dict[str, object]) -> list[Mount]:
    """Return the folders of the host that a request names.  Raises `ValueError`."""
    return [_part("mounts", Mount, entry) for entry in _list(value, "mounts")]


def authorities(value: dict[str, object]) -> list[Authority]:
    """Return the authorities that a request names.  Raises `ValueError`."""
    return [_part("authorities", Authority, entry) for entry in _list(value, "authorities")]


def _part(name: str, kind: Callable[[object], Part], value: object) -> Part:
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def text(value: object, key: str, default: str | None = None) -> str:
    """Return the text that a member of a request is.  Raises `ValueError`."""
    found = value.get(key) if isinstance(value, dict) else None
    if found is None and default is not None:
        return default
    if not isinstance(found, str) or "\0" in found or (not found and default is None):
        raise ValueError(f"{key}: a string is needed")
    return found


def _list(value: dict[str, object], key: str) -> list[object]:
    found = value.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise ValueError(f"{key}: a list is needed")
    return found


def _sizes(value: object) -> list[int]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(size, int) for size in value):
        raise ValueError("disks: a list of numbers is needed")
    return value


def texts(request: dict[str, object], key: str) -> dict[str, str]:
    """Return the variables that a member of a request has.  Raises `ValueError`."""
    value = request.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(
        isinstance(text, str) and "\0" not in text for item in value.items() for text in item
    ):
        raise ValueError(f"{key}: an object of strings is needed")
    return value


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text)
    except binascii.Error as error:
        raise ValueError(f"entropy: {error}") from None
