"""The settings that this host has for mirrors of packages, as sheds get them: pip, uv, npm and apt.

Read are the environment and the files that these programs read: ``pip.conf`` of the machine and of the server's user,
``npmrc`` of both, and what ``apt-config`` says.  Only addresses are taken, and never one with a user, a password or a
token in it: nothing that opens a door enters a shed.  What is left out is told, with what to do instead.
"""

from __future__ import annotations

import configparser
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from shed.errors import ShedError
from shed.run import run

_PIP = {"index-url": "PIP_INDEX_URL", "extra-index-url": "PIP_EXTRA_INDEX_URL", "trusted-host": "PIP_TRUSTED_HOST"}
_UV = {"UV_DEFAULT_INDEX": "PIP_INDEX_URL", "UV_INDEX": "PIP_EXTRA_INDEX_URL"}
"""Variables of uv, and those of pip that say the same: uv does not look at pip's."""
_NPM = "NPM_CONFIG_REGISTRY"
_MOST = 1 << 20
_URL = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?(?:/[A-Za-z0-9._~/%+-]*)?")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]+")
_INDEX_NAME = re.compile(r"^[\w.-]+=")
_ASSIGNMENT = re.compile(r"(PLAIN|TLS)='(.*)'")
_SECRET = "keep it with `shed secret set NAME --host {host}`, and name $NAME in its place in the shed"  # noqa: S105  a hint


@dataclass(frozen=True, slots=True)
class Mirrors:
    """What sheds get, and what they do not."""

    variables: Mapping[str, str]
    """Of pip, uv and npm."""
    apt: str
    """Lines of an ``apt.conf``; empty when there is nothing to set."""
    left_out: tuple[str, ...]
    """A sentence for each setting that sheds do not get."""


def of_host(environment: Mapping[str, str], home: Path, root: Path = Path("/")) -> Mirrors:
    """Return the settings of the host whose files are below `root`, for the user at `home`.  Raises nothing."""
    left_out: list[str] = []
    variables = dict(_pip(environment, home, root, left_out))
    for name, same in _UV.items():
        words = environment.get(name, "").split() or variables.get(same, "").split()
        urls = [word for word in words if _usable(_INDEX_NAME.sub("", word, count=1), name, left_out)]
        variables |= {name: " ".join(urls)} if urls else {}
    registry = _npm(environment, home, root, left_out)
    variables |= {_NPM: registry} if registry and _usable(registry, "npm's registry", left_out) else {}
    return Mirrors(variables, _apt(root, left_out), tuple(dict.fromkeys(left_out)))


def _pip(environment: Mapping[str, str], home: Path, root: Path, left_out: list[str]) -> Iterator[tuple[str, str]]:
    found: dict[str, str] = {}
    own = environment.get("PIP_CONFIG_FILE", "")
    files = [
        root / "etc/xdg/pip/pip.conf",
        root / "etc/pip.conf",
        home / ".pip/pip.conf",
        home / ".config/pip/pip.conf",
    ]
    for path in [*files, *([Path(own)] if own and own != os.devnull else [])]:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string(_read(path))
        except configparser.Error as error:
            left_out.append(f"{path} cannot be understood: {str(error).splitlines()[0]}")
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for key, name in _PIP.items():
        words = (environment.get(name) or found.get(key, "")).split()
        if key == "trusted-host":
            usable = [word for word in words if _HOST.fullmatch(word)]
        else:
            usable = [word for word in words if _usable(word, f"pip's {key}", left_out)]
        if usable:
            yield name, " ".join(usable)


def _npm(environment: Mapping[str, str], home: Path, root: Path, left_out: list[str]) -> str:
    settings: dict[str, str] = {}
    for path in (root / "etc/npmrc", root / "usr/etc/npmrc", home / ".npmrc"):
        pairs = (line.partition("=") for line in _read(path).splitlines() if not line.strip().startswith(("#", ";")))
        settings |= {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
    said = {key.lower(): value for key, value in environment.items() if key.lower().startswith("npm_config_")}
    registry = said.get("npm_config_registry") or settings.get("registry", "")
    host = _split(registry).hostname or "registry.npmjs.org"
    if any(key.startswith(f"//{host}") and key.rpartition(":")[2].startswith("_") for key in settings):
        left_out.append(f"sheds do not get npm's token for {host}: {_SECRET.format(host=host)}")
    return registry


def _apt(root: Path, left_out: list[str]) -> str:
    """Return the proxy that apt has of its own."""
    files = [root / "etc/apt/apt.conf", *sorted(root.glob("etc/apt/apt.conf.d/*"))]
    if not any("proxy" in _read(path).lower() for path in files):  # asking takes longer
        return ""
    asked = ("apt-config", "shell", "PLAIN", "Acquire::http::Proxy", "TLS", "Acquire::https::Proxy")
    try:
        said = run(asked, check=False).stdout.decode(errors="replace")
    except ShedError:  # no apt here
        return ""
    found = {match[1]: match[2] for line in said.splitlines() if (match := _ASSIGNMENT.fullmatch(line))}
    kinds = {"PLAIN": "http", "TLS": "https"}
    usable = {
        kinds[key]: url for key, url in found.items() if url != "DIRECT" and _usable(url, "apt's proxy", left_out)
    }
    return "".join(f'Acquire::{kind}::Proxy "{url}";\n' for kind, url in usable.items())


def _usable(url: str, what: str, left_out: list[str]) -> bool:
    """Tell whether a shed may have an address and can use it; note why not."""
    parts = _split(url)
    if parts.scheme not in ("http", "https"):  # a folder of this machine: no mirror
        return False
    host = parts.hostname or ""
    if "@" in parts.netloc or parts.query or "$" in url:
        named = host if _HOST.fullmatch(host) else "HOST"
        left_out.append(f"sheds do not get {what}, which has credentials in it: {_SECRET.format(host=named)}")
    elif not _URL.fullmatch(url):
        left_out.append(f"sheds do not get {what}: it is no plain address")
    elif _is_here(host):
        left_out.append(
            f"sheds do not get {what}, which is on this machine: publish it with --host-port PORT, and name "
            "http://host.shed.internal:PORT in guest.environment"
        )
    else:
        return True
    return False


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("http", "", "", "", "")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST).decode(errors="replace")
    except OSError:
        return ""
