"""Reading one layer: from an archive, copied into the store on the way, or from the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from shed.errors import DataError
from shed.fsutil import raise_file_limit
from shed.oci.content import FileSlice
from shed.oci.decompression import HEAD, SourceReader, Spool, compression, decoder_errors, decompressed
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, mismatch
from shed.oci.manifest import ImageConfig, Manifest
from shed.oci.staging import StagedBlob
from shed.oci.tarstream import Member, read_tar
from shed.oci.unpack_limits import TOO_LARGE, Part, Unpacking

_T = TypeVar("_T")


def read_layer(
    source: FileSlice,
    descriptor: Descriptor,
    diff_id: Digest,
    *,
    blob: StagedBlob,
    spool: Spool,
    part: Part,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> list[Member]:
    """Copy the layer in `source` byte for byte to `blob`, unpack it to `spool`, and return its members.

    The source is read once; `on_bytes` hears how many bytes of it were read.  The members' contents stay readable while
    `blob` and `spool` are open.  Raises `DataError`, which names the `part`, when the bytes do not have the digests
    they should have, are no layer, or are more than an image may have.
    """

    def tap(data: bytes) -> None:
        part.took(len(data))
        blob.write(data)
        on_bytes(len(data))

    what = part.what
    head = source.pread(HEAD, 0)
    reader = SourceReader(source, tap)
    packed = _compression(head, what)
    try:
        if packed:
            with decoder_errors(what):
                for data in decompressed(reader, head):
                    spool.write(data)
    except DataError as error:
        if error.code == TOO_LARGE:
            raise
        reader.drain()
        _compare(
            f"{what}, blob", descriptor.digest, blob.digest()
        )  # says more than what the decompressor stumbled over
        raise
    reader.drain()
    _compare(f"{what}, blob", descriptor.digest, blob.digest())
    _compare(f"{what}, unpacked", diff_id, spool.digest() if packed else blob.digest())
    return _members(spool.finish() if packed else blob.content(), part)


def unpack_layer(
    source: FileSlice,
    diff_id: Digest,
    *,
    spool: Spool,
    part: Part,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> list[Member]:
    """Return the members of the layer in `source`, whose blob was compared with its digest.

    A layer that is compressed is unpacked to `spool`.  The source is read once; `on_bytes` hears how many bytes of it
    were read.  The members' contents stay readable while `source` and `spool` are open.  Raises `DataError`, which
    names the `part`.
    """
    sha = hashlib.sha256()

    def tap(data: bytes) -> None:
        part.took(len(data))
        on_bytes(len(data))

    what = part.what
    head = source.pread(HEAD, 0)
    reader = SourceReader(source, tap)
    packed = _compression(head, what)
    with decoder_errors(what):
        for data in decompressed(reader, head):
            if packed:
                spool.write(data)
            else:
                sha.update(data)
    reader.drain()
    _compare(f"{what}, unpacked", diff_id, spool.digest() if packed else Digest(f"sha256:{sha.hexdigest()}"))
    return _members(spool.finish() if packed else source, part)


def per_layer(
    manifest: Manifest,
    config: ImageConfig,
    unpacking: Unpacking,
    read: Callable[[Descriptor, Digest, Part], _T],
    *,
    of: str = "",
) -> list[_T]:
    """Return what `read` returns for each layer of an image, bottom first.

    `read` gets the layer, its diffID, and what counts it for `unpacking`, called ``layer N`` after `of`.  A layer that
    is stacked again is read once.
    """
    raise_file_limit()  # each layer keeps two open
    known: dict[tuple[Digest, Digest], _T] = {}
    found = []
    for number, (layer, diff_id) in enumerate(zip(manifest.layers, config.diff_ids, strict=True), 1):
        key = layer.digest, diff_id
        if key not in known:
            known[key] = read(layer, diff_id, unpacking.part(f"{of}layer {number}"))
        found.append(known[key])
    return found


def _members(unpacked: FileSlice, part: Part) -> list[Member]:
    try:
        return list(read_tar(unpacked, part))
    except DataError as error:
        if error.code == TOO_LARGE:
            raise
        raise DataError(f"{part.what}: {error.message}", hint=error.hint) from None


def _compression(head: bytes, what: str) -> str | None:
    try:
        return compression(head)
    except DataError as error:
        raise DataError(f"{what}: {error.message}", hint=error.hint) from None


def _compare(what: str, wanted: Digest, got: Digest) -> None:
    if wanted != got:
        raise mismatch(what, wanted, got)
