"""The server's settings: defaults that need no file, and ``server.yaml`` for those who want others.

```yaml
name: builder-1            # how this server calls itself
bind_address: 127.0.0.1    # TCP beside the Unix socket; loopback only
http_port: 8080            # absent: no TCP
default_image: base
log_level: info            # debug, info, warning, error
qemu:
  default_cpus: 2
  default_memory_mb: 2048
  upper_size_default: 5G
  start_timeout: 120s      # to the agent's first word, and again to ready
  stop_timeout: 10s        # a clean poweroff; then the VM is killed
```

An unknown key is refused with the nearest known one: a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shed.config.sizes import parse_size
from shed.errors import ShedError, UsageError

GIB = 1 << 30
MIN_UPPER, MAX_UPPER = 1 * GIB, 100 * GIB
"""Least and most bytes of a shed's writable layer."""
MIN_MEMORY_MB, MAX_MEMORY_MB, MAX_CPUS = 128, 1 << 20, 64
LOG_LEVELS = ("debug", "info", "warning", "error")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server runs with.  Times are in seconds."""

    name: str = "local"
    bind_address: str = "127.0.0.1"
    http_port: int | None = None
    default_image: str = "base"
    log_level: str = "info"
    default_cpus: int = 2
    default_memory_mb: int = 2048
    default_upper_size: int = 5 * GIB
    start_timeout: float = 120.0
    stop_timeout: float = 10.0


def configured_images(settings: Settings) -> dict[str, str]:
    """Return the references of images that the configuration names, by their keys."""
    return {"default_image": settings.default_image}


class ConfigError(ShedError):
    """A configuration file cannot be used; the message names the file and the key."""

    code = "INVALID_CONFIG"
    http_status = 500
    exit_code = 2


def search_paths() -> list[Path]:
    """Return where a configuration is looked for, first match wins."""
    return [Path("server.yaml"), Path.home() / ".config/shed/server.yaml", Path("/etc/shed/server.yaml")]


def load_settings(path: Path | None = None) -> Settings:
    """Return the settings of the file `path`, or of the first one of `search_paths` that exists, or the defaults.

    Raises `ConfigError` for a file that cannot be read, a key that does not exist, or a value of the wrong kind.
    """
    if path is None:
        path = next(filter(_is_there, search_paths()), None)
        if path is None:
            return Settings()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}", hint="name another file with --config") from error
    return parse_settings(text, path)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # then reading it says so
        return True


def parse_settings(text: str, path: Path) -> Settings:
    """Return the settings that the YAML `text` holds; `path` is for messages.  Raises `ConfigError`."""
    import yaml  # noqa: PLC0415  a server without a file should not pay for it

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}", hint="check the indentation there") from None
    return _apply(Settings(), document, _TOP, path, "")


def _apply(settings: Settings, document: object, known: Mapping[str, _Setting], path: Path, prefix: str) -> Settings:
    if document is None:
        return settings
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: {prefix.rstrip('.') or 'the file'} must hold keys and values", hint="write `key: value` lines")
    for key, value in document.items():
        name = f"{prefix}{key}"
        setting = known.get(key) if isinstance(key, str) else None
        if setting is None:
            raise ConfigError(f"{path}: unknown key {name!r}", hint=_suggestion(str(key), known))
        if isinstance(setting, _Section):
            settings = _apply(settings, value, setting.keys, path, f"{name}.")
            continue
        try:
            changed: dict[str, Any] = {setting.field: setting.convert(value)}
        except (ValueError, TypeError, UsageError) as error:
            raise ConfigError(f"{path}: {name}: {error}", hint="correct the value, or remove the line for the default") from None
        settings = replace(settings, **changed)
    return settings


def _suggestion(key: str, known: Mapping[str, _Setting]) -> str:
    import difflib  # noqa: PLC0415  for mistakes only

    homes = {**{name: name for name in known}, **{name: f"qemu.{name}" for name in _QEMU}}
    near = difflib.get_close_matches(key, homes, n=1)
    return f"did you mean {homes[near[0]]!r}?" if near else f"known keys are {', '.join(sorted(known))}"


@dataclass(frozen=True, slots=True)
class _Value:
    field: str
    convert: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class _Section:
    keys: Mapping[str, _Setting]


_Setting = _Value | _Section


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be text")
    return value


def _choice(*choices: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return convert


def _number(least: int, most: int) -> Callable[[object], int]:
    def convert(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return convert


def _upper_size(value: object) -> int:
    size = parse_size(str(value))
    if not MIN_UPPER <= size <= MAX_UPPER:
        raise ValueError("must be from 1G to 100G")
    return size


def _duration(value: object) -> float:
    match = _DURATION.fullmatch(str(value))
    if match is None or isinstance(value, bool) or float(match[1]) <= 0:
        raise ValueError(f"{value!r} is not a time: write a number and ms, s, m or h")
    return float(match[1]) * _SECONDS[match[2]]


_QEMU: dict[str, _Setting] = {
    "default_cpus": _Value("default_cpus", _number(1, MAX_CPUS)),
    "default_memory_mb": _Value("default_memory_mb", _number(MIN_MEMORY_MB, MAX_MEMORY_MB)),
    "upper_size_default": _Value("default_upper_size", _upper_size),
    "start_timeout": _Value("start_timeout", _duration),
    "stop_timeout": _Value("stop_timeout", _duration),
}
_TOP: dict[str, _Setting] = {
    "name": _Value("name", _text),
    "bind_address": _Value("bind_address", _text),
    "http_port": _Value("http_port", _number(1, 65535)),
    "default_image": _Value("default_image", _text),
    "log_level": _Value("log_level", _choice(*LOG_LEVELS)),
    "qemu": _Section(_QEMU),
}
