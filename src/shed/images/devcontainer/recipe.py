"""The Containerfile that installs features on a base, and the folder that it is built from.

::

    FOLDER/Containerfile
    FOLDER/devcontainer.json         what the image notes of itself: `shed.devjson.METADATA`
    FOLDER/N/run                     runs the script of feature N
    FOLDER/N/HEX                     its variables, for a shell: it may be installed twice, with other ones
    FOLDER/N/feature/                its files

Scripts run as root, in the builder's isolation.  HEX is of all that decides what one does.  It stands in the command
that runs it, since not every builder looks at what a mount holds before it takes a layer from its cache.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shed.devjson import LIFECYCLE, METADATA, load
from shed.errors import DataError
from shed.images.devcontainer.feature import Feature
from shed.images.devcontainer.project import Project
from shed.oci.digest import digest_bytes, hex_of

BASE = "shed-devcontainer-base"
"""What the base is called for the builder."""
METADATA_LABEL = "devcontainer.metadata"
"""The label of the specification: https://containers.dev/implementors/reference/#labels."""
_IN_SHED = (*LIFECYCLE, "containerEnv", "remoteEnv")
"""What the shed does."""
_MOST_LABEL = 60_000
"""Characters: builders take lines of 64 KiB."""
_MOUNT = "/run/shed-feature"
_CONTAINER_ENV = re.compile(r"\$\{containerEnv:([A-Za-z_][A-Za-z0-9_]*)\}")
_RUN = r"""set -e
place=/tmp/shed-feature
home() {
    while IFS=: read -r name _ number _ _ folder _; do
        if [ "$name" = "$1" ] || [ "$number" = "$1" ]; then echo "$folder"; return; fi
    done </etc/passwd
}
_CONTAINER_USER=$1 _REMOTE_USER=$2 options=$3
_CONTAINER_USER_HOME=$(home "$1") _REMOTE_USER_HOME=$(home "$2")
export _CONTAINER_USER _REMOTE_USER _CONTAINER_USER_HOME _REMOTE_USER_HOME
mkdir -p /tmp
rm -rf "$place"
cp -R @/feature "$place"
chmod +x "$place/install.sh"
code=0
(cd "$place"; set -a; . "@/$options"; set +a; exec ./install.sh) || code=$?
rm -rf "$place"
exit $code
""".replace("@", _MOUNT)
_USER_THERE = (
    "while IFS=: read -r name rest; do [ \"$name\" != '{user}' ] || exit 0; done </etc/passwd; "
    'echo "the image has no user {user}, which the project wants" >&2; exit 1'
)


@dataclass(frozen=True, slots=True)
class Users:
    """Who runs what in the image; names or numbers."""

    container: str
    remote: str
    """Who commands of a shed run as."""

    @classmethod
    def of(cls, project: Project, settings: Mapping[str, Any], inherited: Sequence[Mapping[str, Any]]) -> Users:
        """Return them as the project says, or what its base says: in its metadata, else in its `settings`."""
        said = {key: each[key] for each in inherited for key in ("containerUser", "remoteUser") if key in each}
        image = settings.get("User")
        container = project.container_user or _name(said.get("containerUser")) or _name(image) or "root"
        return cls(container, project.remote_user or _name(said.get("remoteUser")) or container)


def _name(value: object) -> str:
    """Return a user's name that a base says, if it can be one."""
    right = isinstance(value, str) and value[:1] != "-" and all(c.isalnum() or c in "._-:" for c in value)
    return str(value) if right else ""


def inherited(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the label of a base says of the features in it.  Raises `DataError`."""
    labels = settings.get("Labels")
    text = labels.get(METADATA_LABEL) if isinstance(labels, dict) else None
    if not isinstance(text, str):
        return []
    try:
        found = load(b'{"metadata": ' + text.encode() + b"}")["metadata"]
    except ValueError as error:
        raise DataError(f"the label {METADATA_LABEL} of the base: {error}") from None
    entries = found if isinstance(found, list) else [found]
    return [each for each in entries if isinstance(each, dict)]


def write_context(folder: Path, project: Project, features: Sequence[Feature], settings: Mapping[str, Any]) -> Path:
    """Write the Containerfile and what it needs to `folder`, which has the files of features; return its path.

    `settings` are the base's.  Raises `DataError` and `UsageError`.
    """
    before = inherited(settings)
    users = Users.of(project, settings, before)
    lines = [f"FROM {BASE}", "USER root"]
    for feature in features:
        lines += _install(feature, users)
    if project.remote_user or project.container_user:
        user = users.remote.partition(":")[0]
        lines += [] if user.isdigit() else [f"RUN {_USER_THERE.format(user=user)}"]
    own = {"remoteUser": users.remote, "containerUser": users.container}
    if isinstance(project.document.get("customizations"), dict):
        own["customizations"] = project.document["customizations"]
    noted = [*before, *({"id": feature.name, **feature.metadata.kept} for feature in features)]
    label = f"LABEL {METADATA_LABEL}={_quoted(json.dumps([*noted, own]), keep='')}"
    run = [{key: each[key] for key in ("id", *_IN_SHED) if key in each} for each in noted]
    if len(label) > _MOST_LABEL:
        raise DataError(f"what the features say of themselves is longer than {_MOST_LABEL} characters")
    (folder / "devcontainer.json").write_text(json.dumps({"metadata": [each for each in run if each.keys() - {"id"}]}))
    lines += [
        f"COPY --chown=0:0 devcontainer.json {METADATA}",
        label,
        f"USER {users.remote}",
    ]
    file = folder / "Containerfile"
    file.write_text("\n".join(lines) + "\n")
    return file


def _install(feature: Feature, users: Users) -> list[str]:
    """Return the lines that install a feature; write what they need beside its files."""
    place = feature.folder.parent
    variables = feature.environment()
    options = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items() if name)
    (place / "run").write_text(_RUN)
    decided = hex_of(digest_bytes(f"{feature.digest}\n{options}\n{_RUN}".encode()))[:32]
    (place / decided).write_text(options)
    env = {name: _CONTAINER_ENV.sub(r"${\1}", value) for name, value in feature.metadata.env.items()}
    script = ["sh", f"{_MOUNT}/run", *(name.partition(":")[0] for name in (users.container, users.remote)), decided]
    return [
        *(f"ENV {name}={_quoted(value, keep='$')}" for name, value in env.items()),
        f"RUN --mount=type=bind,source={place.name},target={_MOUNT} {shlex.join(script)}",
    ]


def _quoted(text: str, *, keep: str) -> str:
    """Return `text` as one word of a Containerfile, where `keep` may be ``$``, which names variables there."""
    for mark in ("\\", '"', "$"):
        text = text if mark == keep else text.replace(mark, f"\\{mark}")
    return f'"{text}"'
