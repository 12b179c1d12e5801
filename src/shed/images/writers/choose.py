"""Which writer a command line asks for."""

from __future__ import annotations

from shed.erofs.compression import Compression
from shed.images.writers.base import RootWriter
from shed.images.writers.builtin import BuiltinWriter


def choose_writer(*, compression: str | None, build_tools: str | None) -> RootWriter | None:
    """Return the writer: the built-in one, unless a version of the build tools is named; None, minting's default, when nothing is said.

    Raises `UsageError`; and, when there is no engine or no image, what `ContainerWriter` raises.
    """
    how = None if compression is None else Compression.parse(compression)
    if build_tools is None:
        return None if how is None else BuiltinWriter(how)
    from shed.images.writers.container import ContainerWriter  # noqa: PLC0415  needs more than most builds do

    return ContainerWriter(
        build_tools, how or Compression.parse("zstd")
    )  # minting refuses it for a kernel that cannot read it
