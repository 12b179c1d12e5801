"""Shared libraries of Debian packages: which ones a program needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shed.errors import DataError
from shed.images.bootkit.debs import Deb
from shed.images.bootkit.elf import Elf

LOADER = "ld-linux-x86-64.so.2"
_FOLDER = "usr/lib/x86_64-linux-gnu/"


def read_libraries(debs: Iterable[Deb]) -> dict[str, bytes]:
    """Return the libraries in `debs` by the names that programs ask for."""
    files: dict[str, bytes | str] = {}
    for deb in debs:
        for path, content in deb.members(
            lambda path: path.startswith(_FOLDER) and "/" not in path[len(_FOLDER) :] and ".so" in path
        ):
            files[path[len(_FOLDER) :]] = content
    resolved = {name: files.get(content) if isinstance(content, str) else content for name, content in files.items()}
    return {name: content for name, content in resolved.items() if isinstance(content, bytes)}


def closure(programs: Mapping[str, bytes], libraries: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return all of `libraries` that `programs` need, and the loader.  Raises `DataError` when one is missing."""
    found = {LOADER: libraries[LOADER]}
    pending = dict(programs)
    while pending:
        name, data = pending.popitem()
        for needed in Elf(data, name).needed():
            if needed in found:
                continue
            if needed not in libraries:
                raise DataError(f"{name} needs the library {needed}, which is in none of the packages")
            found[needed] = pending[needed] = libraries[needed]
    return found
