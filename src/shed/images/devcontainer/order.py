"""In which order features are installed: rounds, as the specification has them.

Source: https://containers.dev/implementors/features/#dependson-install-order-algorithm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from shed.errors import UsageError
from shed.images.devcontainer.feature import Feature
from shed.oci.digest import Digest

_NUMBER = re.compile(r"[0-9]{1,9}")
Key = tuple[str, tuple[tuple[str, str], ...]]


def install_order(
    features: Sequence[Feature], hard: Mapping[Key, Sequence[Key]], first: Sequence[str] = ()
) -> list[Feature]:
    """Return `features` in the order in which they are installed.

    `hard` are the keys of those that each depends on; what a feature is to be installed after counts only where that
    is among `features`.  `first` are those that come as soon as they can, without versions.  Raises `UsageError` for
    those that wait for each other.
    """
    names = {feature.key: _names(feature) for feature in features}
    waits = {feature.key: {*hard.get(feature.key, ()), *_soft(feature, names)} for feature in features}
    priority = {without_version(name): len(first) - index for index, name in reversed([*enumerate(first)])}
    ranks = {key: max((priority.get(name, 0) for name in each), default=0) for key, each in names.items()}
    done: list[Feature] = []
    left = list(features)
    while left:
        installed = {feature.key for feature in done}
        ready = [feature for feature in left if waits[feature.key] <= installed]
        if not ready:
            stuck = ", ".join(feature.name for feature in left[:10])
            raise UsageError(f"features wait for each other: {stuck}", hint="leave one of them out")
        highest = max(ranks[feature.key] for feature in ready)
        done += sorted((feature for feature in ready if ranks[feature.key] == highest), key=_place)
        chosen = {feature.key for feature in done}
        left = [feature for feature in left if feature.key not in chosen]
    return done


def without_version(name: str) -> str:
    """Return the name of a feature without tag and digest, in small letters."""
    name = name.partition("@")[0].lower()
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _soft(feature: Feature, names: Mapping[Key, set[str]]) -> list[Key]:
    """Return the keys of those that a feature is to be installed after, if they are there."""
    wanted = {without_version(name) for name in feature.metadata.installs_after}
    return [key for key, known in names.items() if key != feature.key and wanted & known]


def _names(feature: Feature) -> set[str]:
    """Return what others may call a feature: also by names that it had before."""
    head, slash, _ = feature.resource.rpartition("/")
    return {feature.resource, *(f"{head}{slash}{old.lower()}" for old in feature.metadata.legacy_ids)}


def _place(feature: Feature) -> tuple[str, tuple[int, list[int], str], int, list[str], list[str], Digest]:
    """Return what decides between those of one round."""
    options = sorted(feature.options.items())
    return (
        feature.resource,
        _age(feature.tag),
        -len(options),
        [name for name, _ in options],
        [value for _, value in options],
        feature.digest,
    )


def _age(tag: str) -> tuple[int, list[int], str]:
    """Return what sorts versions, the latest last."""
    numbers = [int(part) for part in tag.split(".") if _NUMBER.fullmatch(part)]
    return (1 if tag in ("", "latest") else 0), numbers, tag
