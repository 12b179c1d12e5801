"""What decides an image of a project: a digest of all that goes into it, so that the same is not built again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shed.errors import DataError, UsageError
from shed.images.builders.containerfile import read_names, takes_context
from shed.images.devcontainer.feature import Feature
from shed.images.devcontainer.files import read_below, tree_digest
from shed.images.devcontainer.project import DockerBuild, Project
from shed.images.remote import find_remote
from shed.oci.digest import Digest, digest_bytes
from shed.oci.registry.client import Repository
from shed.oci.registry.reference import parse_reference
from shed.oci.store import LayoutStore
from shed.untrusted import told

_RECIPE = 2
"""Changes when the same project is to become another image."""
_MOST_FILE = 1 << 20
_ELSEWHERE = re.compile(
    "(?:atomic|containers-storage|dir|docker|docker-archive|docker-daemon|oci|oci-archive|ostree|sha256|sif|tarball):"
)
"""Begins names that mean something else to podman and buildah: a file or folder, another storage."""
_LOCAL = "localhost/"
"""Names of images that are in a builder's storage alone."""


def build_identity(build: DockerBuild, store: LayoutStore) -> str:
    """Return what decides the image of a Dockerfile; empty when only a build can tell what one of its bases is.

    Its text, its arguments, its bases, and all files of its context if it takes any.  What its commands download is not
    among it.  Raises `DataError` for a file that is no text, or has a base that is no name of an image,
    `NotFoundError`, `RegistryError` and `UnavailableError` when a registry does not tell what a base is.
    """
    text = dockerfile(build.file.parent, build.file)
    for named in read_names(text, build.args, within=True).images:
        _check_name(named.name, build.file)
    bases = {}
    for named in read_names(text, build.args).images:
        name = named.name
        if _is_no_image(name):
            continue
        if name.startswith(_LOCAL):
            return ""
        bases[name] = base_identity(name, store)
    context = tree_digest(build.context) if takes_context(text) else ""
    return _digest([text, dict(build.args), build.target, bases, context])


def _is_no_image(name: str) -> bool:
    return name == "scratch" or name.isdigit()


def _check_name(name: str, file: Path) -> None:
    """Raise `DataError` for what is not the name of an image: to podman and buildah it may mean files of this machine.

    A variable is none, too: what it holds where it is put in is theirs to say.
    """
    try:
        right = _is_no_image(name) or (not _ELSEWHERE.match(name) and bool(parse_reference(name.lower())))
    except UsageError:
        right = False
    if not right:
        raise DataError(
            f"{file.name}: {told(name)} is no stage, and no image of a registry or of this store",
            hint="name an image as REGISTRY/NAME:TAG; files come with COPY, from the build's context",
        )


def dockerfile(project: Path, file: Path) -> str:
    """Return what the Dockerfile `file` below `project` says.  Raises `DataError` for one that is no text, or long."""
    try:
        return read_below(project, file, _MOST_FILE).decode()
    except UnicodeDecodeError:
        raise DataError(f"{file} is no text") from None


def base_identity(name: str, store: LayoutStore) -> Digest:
    """Return the digest of the manifest of the image `name`: of the store, else of its registry.

    Not of its config, which names no blob: who publishes an image could name the config of another one.

    Raises `UsageError` for what is no name, `NotFoundError`, `RegistryError` and `UnavailableError`.
    """
    if (digest := stored(name, store)) is not None:
        return digest
    reference = parse_reference(name)
    with Repository(reference, private_hosts=store.limits.private_hosts) as repository:
        return find_remote(repository, None).digest


def stored(name: str, store: LayoutStore) -> Digest | None:
    """Return the manifest of the image that NAME or NAME:latest means in the store."""
    short = name.removesuffix(":latest")
    tag = store.tag(short) if short in store.tag_names() else None
    return None if tag is None else tag.digest


def image_key(project: Project, features: Sequence[Feature], base: str, made_with: Sequence[str]) -> Digest:
    """Return the digest of all that goes into an image: what it begins with, its features in their order, its users.

    `made_with` are the boot kit, the writer, and the time that files are to have.
    """
    return _digest(
        [
            _RECIPE,
            [*made_with],
            base,
            [[feature.name, feature.digest, dict(feature.options)] for feature in features],
            [project.container_user, project.remote_user, project.document.get("customizations")],
        ]
    )


def _digest(value: Any) -> Digest:
    return digest_bytes(json.dumps(value, sort_keys=True).encode())
