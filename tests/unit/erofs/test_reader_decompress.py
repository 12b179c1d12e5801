"""Decoding clusters: exact sizes, and no trust in what they say about themselves."""

from __future__ import annotations

import contextlib
import zlib

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shed.erofs import layout
from shed.erofs.compression import decode, lz4_prefix
from shed.erofs.errors import ErofsError
from support.erofs.trees import text

DATA = text(20_000)
LZ4 = lz4.block.compress(DATA, store_size=False)
ZSTD = zstandard.ZstdCompressor().compress(DATA)
ENCODED = {
    layout.ALGORITHM_LZ4: LZ4,
    layout.ALGORITHM_ZSTD: ZSTD,
    layout.ALGORITHM_DEFLATE: zlib.compress(DATA, wbits=-15),
}


@pytest.mark.parametrize("algorithm", ENCODED)
def test_padding_before_the_stream_is_ignored(algorithm: int) -> None:
    """Streams end at the end of their cluster."""
    assert decode(algorithm, bytes(100) + ENCODED[algorithm], len(DATA)) == DATA


@pytest.mark.parametrize("algorithm", ENCODED)
def test_a_part_of_what_a_cluster_holds(algorithm: int) -> None:
    """Any prefix can be had."""
    for length in (1, 100, 12_345, len(DATA)):
        assert decode(algorithm, bytes(10) + ENCODED[algorithm], length, partial=True) == DATA[:length]


@pytest.mark.parametrize("algorithm", [layout.ALGORITHM_LZ4, layout.ALGORITHM_ZSTD])
@pytest.mark.parametrize("length", [1, len(DATA) - 1, len(DATA) + 1])
def test_more_or_less_than_the_extent_is_damage(algorithm: int, length: int) -> None:
    """The error names the inode."""
    with pytest.raises(ErofsError) as caught:
        decode(algorithm, ENCODED[algorithm], length, nid=7)
    assert (caught.value.rule, caught.value.nid) == ("compressed-data", 7)


@pytest.mark.parametrize("algorithm", ENCODED)
@pytest.mark.parametrize("data", [b"", bytes(50), bytes(8192), bytes(5000) + b"\1", b"\xff" * 300])
def test_what_is_no_stream(algorithm: int, data: bytes) -> None:
    """It is damage, for each algorithm."""
    with pytest.raises(ErofsError):
        decode(algorithm, data, 5000)


def test_a_frame_that_claims_to_be_huge_is_not_believed() -> None:
    """It is damage, and no memory is taken for it."""
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(70_000)))
    assert zstandard.frame_content_size(bytes(frame)) == 70_000
    frame[5:9] = b"\xff\xff\xff\x7f"
    assert zstandard.frame_content_size(bytes(frame)) > 1 << 30
    for partial in (False, True):
        with pytest.raises(ErofsError):
            decode(layout.ALGORITHM_ZSTD, bytes(frame), 70_000, partial=partial)


def test_lzma_is_refused_by_name() -> None:
    """It is not taken for damage."""
    with pytest.raises(ErofsError, match="lzma") as caught:
        decode(layout.ALGORITHM_LZMA, b"\0\1", 10)
    assert caught.value.rule == "unsupported-feature"


@given(
    st.lists(st.sampled_from([b"a", b"bc", b"\0\0\0", b"hello world", bytes(range(50))]), min_size=1, max_size=200),
    st.data(),
)
def test_every_prefix_is_what_the_library_decodes(pieces: list[bytes], draw: st.DataObject) -> None:
    """Our decoder of parts agrees with lz4, whatever follows the stream."""
    data = b"".join(pieces)
    stream = lz4.block.compress(data, store_size=False)
    length = draw.draw(st.integers(1, len(data)))
    assert lz4_prefix(stream, length) == data[:length]
    assert lz4_prefix(stream + b"anything", length) == data[:length]


@given(st.binary(max_size=300), st.integers(1, 5000))
def test_no_bytes_make_it_fail_otherwise_than_it_says(data: bytes, length: int) -> None:
    """A `ValueError`, or as many bytes as were asked for."""
    with contextlib.suppress(ValueError):
        assert len(lz4_prefix(data, length)) == length
