"""What a ``devcontainer.json`` asks of an image, and of the machine.

The project may be hostile: what it names is a file below its own folder, or an image; it learns no variable of this
machine that was not allowed, and nothing of it runs outside of the builder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shed import devjson
from shed.errors import DataError, NotFoundError, UsageError
from shed.images.devcontainer.files import read_below
from shed.images.devcontainer.values import Options, parse_options, texts
from shed.sizes import parse_size
from shed.untrusted import told

_MOST_FEATURES = 100
_EXTENSION = re.compile(r"[A-Za-z0-9-]{1,100}\.[A-Za-z0-9-]{1,100}")
_IGNORED_BUILD = {
    "cacheFrom": "the builder has a cache of its own",
    "options": "the builder gets no options from a project",
}


@dataclass(frozen=True, slots=True)
class DockerBuild:
    """The Dockerfile that the image begins with."""

    file: Path
    context: Path
    args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the shed is to have at least; None where the project does not say."""

    cpus: int | None = None
    memory: int | None = None
    """Bytes."""
    storage: int | None = None
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Project:
    """One project."""

    folder: Path
    file: Path
    """Its ``devcontainer.json``."""
    base: str | DockerBuild
    """The image that it begins with, or how that is built."""
    features: Mapping[str, Options] = field(default_factory=dict)
    """What the file names, as it is written there, and its options."""
    order: tuple[str, ...] = ()
    """Features that are to come first."""
    container_user: str = ""
    remote_user: str = ""
    requirements: Requirements = field(default_factory=Requirements)
    ports: tuple[int, ...] = ()
    """What it wants to be forwarded."""
    local_env: Mapping[str, str] = field(default_factory=dict)
    """Variables for its commands that hold what was allowed of this machine's."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """All that the file says."""
    notes: tuple[str, ...] = ()
    """Sentences about what is not done."""

    def extensions(self) -> list[str]:
        """Return the extensions of VS Code that the project wants, as far as they are names of such."""
        found: Any = self.document.get("customizations")
        for key in ("vscode", "extensions"):
            found = found.get(key) if isinstance(found, dict) else None
        words = found if isinstance(found, list) else []
        return [word for word in words if isinstance(word, str) and _EXTENSION.fullmatch(word)][:_MOST_FEATURES]


def read_project(
    folder: Path, local: Mapping[str, str] | None = None, allowed: Collection[str] | None = None
) -> Project:
    """Return what the project in `folder` asks for; `local` are the variables of this machine that it may read.

    `allowed` are the names that it may read, set or not (default: those of `local`).

    Raises `NotFoundError` without a ``devcontainer.json``, and `DataError` for what it should not say.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", hint="name the folder of a project")
    for name in devjson.FILES:
        file = folder / name
        if file.is_file():
            break
    else:
        raise NotFoundError(f"{folder} has no {devjson.FILES[0]}", hint="name the folder of a project that has one")
    try:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise ValueError("it is a link that leads out of the project's folder")
        document = devjson.load(read_below(folder, file.resolve(), devjson.MOST_FILE))
        return _project(folder, file, document, local or {}, allowed)
    except (ValueError, OSError, RuntimeError) as error:
        raise DataError(f"{file}: {error}", hint="see https://containers.dev/implementors/json_reference/") from None


def _project(
    folder: Path, file: Path, document: Mapping[str, Any], local: Mapping[str, str], allowed: Collection[str] | None
) -> Project:
    notes = [
        f"it may not read your variable {told(name)}: --local-env {told(name)} lets it"
        for name in sorted(devjson.local_names(document).difference(local if allowed is None else allowed))
    ]
    features = document.get("features") or {}
    if not isinstance(features, dict) or len(features) > _MOST_FEATURES:
        raise ValueError(f"features is not an object with {_MOST_FEATURES} members at most")
    order = document.get("overrideFeatureInstallOrder") or []
    return Project(
        folder=folder,
        file=file,
        base=_base(folder, file, document, local, notes),
        features={name: parse_options(value, f"features: {told(name)}") for name, value in features.items()},
        order=texts(order, "overrideFeatureInstallOrder", _MOST_FEATURES),
        container_user=_user(document, "containerUser"),
        remote_user=_user(document, "remoteUser"),
        requirements=_requirements(document.get("hostRequirements") or {}, notes),
        ports=_ports(document.get("forwardPorts") or [], notes),
        local_env=_local_env(document, local),
        document=document,
        notes=tuple(notes),
    )


def _base(
    folder: Path, file: Path, document: Mapping[str, Any], local: Mapping[str, str], notes: list[str]
) -> str | DockerBuild:
    build = document.get("build") or {}
    if not isinstance(build, dict):
        raise ValueError("build is not an object")
    dockerfile = build.get("dockerfile", document.get("dockerFile"))
    image = document.get("image")
    if dockerfile is None:
        if image is None and "dockerComposeFile" in document:
            raise ValueError("a shed is not made by docker compose: name an image, or a Dockerfile")
        if not isinstance(image, str) or not image.strip():
            raise ValueError("it names no image and no Dockerfile")
        name, unknown = devjson.fill(image.strip(), local)
        if unknown or name.startswith(("-", ".", "/")):
            raise ValueError(f"{told(name)} is not the name of an image")
        return name
    notes += [f"build.{key}: {why}" for key, why in _IGNORED_BUILD.items() if key in build]
    args, target = build.get("args") or {}, build.get("target")
    if not isinstance(args, dict) or not all(isinstance(value, str) for value in args.values()):
        raise ValueError("build.args does not hold texts")
    if any(not name or "=" in name for name in args):
        raise ValueError("build.args has a name that no argument can have")
    if target is not None and (not isinstance(target, str) or not target or target.startswith("-")):
        raise ValueError("build.target is not the name of a stage")
    context = below(folder, file.parent, build.get("context", document.get("context", ".")), "build.context")
    found = below(folder, file.parent, dockerfile, "build.dockerfile")
    if not context.is_dir():
        raise ValueError(f"build.context: {told(context.name)} is not a folder")
    if not found.is_file():
        raise ValueError(f"build.dockerfile: {told(dockerfile)} is not a file")
    filled = {name: devjson.fill(value, local) for name, value in args.items()}
    notes += [f"build.args: {told(name)} names what is not known: it is left out" for name in args if filled[name][1]]
    return DockerBuild(found, context, {name: value for name, (value, un) in filled.items() if not un}, target)


def below(folder: Path, start: Path, path: object, what: str) -> Path:
    """Return the file that `path` means from `start`; it cannot be outside of `folder`, by links either.

    Raises `ValueError`.
    """
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"{what} is not a path")
    try:
        found, top = (start / path).resolve(), folder.resolve()
        found.exists()
    except (OSError, RuntimeError):  # too long, or links without an end
        raise ValueError(f"{what}: {told(path)} is no path that can be followed") from None
    if not found.is_relative_to(top):
        raise ValueError(f"{what}: {told(path)} leads out of the project's folder")
    return found


def _user(document: Mapping[str, Any], key: str) -> str:
    name = document.get(key) or ""
    if not isinstance(name, str) or name.startswith("-") or not all(c.isalnum() or c in "._-:" for c in name):
        raise ValueError(f"{key} is not the name of a user")
    return name


def _requirements(found: object, notes: list[str]) -> Requirements:
    if not isinstance(found, dict):
        raise ValueError("hostRequirements is not an object")
    cpus = found.get("cpus")
    if cpus is not None and (not isinstance(cpus, int) or isinstance(cpus, bool) or cpus < 1):
        raise ValueError("hostRequirements.cpus is not a number above 0")
    if found.get("gpu") not in (None, False, "optional"):
        raise ValueError("hostRequirements.gpu: a shed has none")
    notes += [
        f"hostRequirements: {told(key)} means nothing here"
        for key in found
        if key not in {"cpus", "memory", "storage", "gpu"}
    ]
    return Requirements(cpus, *(_size(found.get(key), f"hostRequirements.{key}") for key in ("memory", "storage")))


def _size(value: object, what: str) -> int | None:
    if value is None:
        return None
    try:
        return parse_size(str(value))
    except UsageError:
        raise ValueError(f"{what}: {told(value)} is not a size") from None


def _ports(found: object, notes: list[str]) -> tuple[int, ...]:
    if not isinstance(found, list):
        raise ValueError("forwardPorts is not a list")
    ports = [port for port in found if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 1 << 16]
    notes += [f"forwardPorts: {told(port)} is no port of the shed" for port in found if port not in ports][:10]
    return tuple(dict.fromkeys(ports))


def _local_env(document: Mapping[str, Any], local: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of commands that are only known on this machine: the shed gets them by its create."""
    found = {}
    for key in ("containerEnv", "remoteEnv"):
        members = document.get(key) or {}
        if not isinstance(members, dict):
            raise ValueError(f"{key} does not hold keys and values")
        for name, value in members.items():
            if devjson.local_names(value) & local.keys():
                if not isinstance(value, str):
                    raise ValueError(f"{key}: {told(name)} is not a text")
                filled, unknown = devjson.fill(value, local)
                if not unknown:
                    found[name] = filled
    return found


def check_host(wanted: Requirements, *, cpus: int, memory: int) -> None:
    """Raise `UsageError` when this machine, with its `cpus` and bytes of `memory`, has less than a project asks for."""
    short: Sequence[str] = [
        f"{what} {asked}"
        for what, asked, there in (("cpus", wanted.cpus, cpus), ("memory", wanted.memory, memory))
        if asked is not None and asked > there
    ]
    if short:
        raise UsageError(
            f"this machine has less than the project's hostRequirements: {', '.join(short)}",
            hint="say what the shed is to have: --cpus N, --memory SIZE",
        )
