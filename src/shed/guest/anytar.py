"""Tar streams that shed did not write: whatever `tarfile` reads, compressed or not."""

from __future__ import annotations

import tarfile

from shed.guest import tar
from shed.guest.tar import BUFFER, ArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Self

_LONGEST_HEADER = 1 << 20
"""Bytes of an extended header, which is held in memory; names and links are far shorter."""
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Header(tarfile.TarInfo):
    """A member of a tar archive that must be complete.

    `tarfile` takes a stream that is cut or damaged behind a member for one that ends there.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Return the next member.  Raises `tarfile.ReadError` for anything that is neither one nor the end."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member


class reading:  # noqa: N801  a context manager, without importing contextlib
    """An archive that is read once, from front to back; what is wrong with it is an `ArchiveError`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def __enter__(self) -> tarfile.TarFile:
        try:
            self._archive = tarfile.open(fileobj=self._stream, mode="r|*", bufsize=BUFFER, tarinfo=_Header)
        except (tarfile.TarError, EOFError) as error:
            raise ArchiveError(f"this is not a tar stream: {error}") from None
        return self._archive

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._archive.close()
        if isinstance(error, (tarfile.TarError, EOFError, ValueError)):
            raise ArchiveError(f"the tar stream is damaged: {error}") from None
        if kind is None:
            while self._stream.read(BUFFER):
                pass  # padding: whoever sends it must not find nobody there


def member(entry: tarfile.TarInfo) -> tar.Member:
    """Return what `entry` is."""
    kinds = (
        (entry.isdir(), tar.FOLDER),
        (entry.isreg(), tar.FILE),
        (entry.issym(), tar.LINK),
        (entry.islnk(), tar.HARD_LINK),
    )
    found = tar.Member(entry.name, next((kind for has, kind in kinds if has), None))
    found.mode, found.uid, found.gid, found.size, found.link = (
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        entry.linkname,
    )
    found.mtime = int(entry.mtime * 1_000_000_000)
    return found


def content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[memoryview]:
    """Yield the content of a file, in pieces."""
    source = archive.extractfile(entry)
    assert source is not None
    while data := source.read(BUFFER):
        yield memoryview(data)
