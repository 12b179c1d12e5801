"""What an image may come to while its layers are unpacked and listed: counted over all of them, as they are read.

A few megabytes can unpack to terabytes, and a list of names can fill the memory.  So bytes, files and memory are
counted before they are taken, and the first one too many ends the work with an error that names the layer, the count
and the limit.
"""

from __future__ import annotations

import threading

from shed.budget import Reserve
from shed.errors import DataError
from shed.sizes import format_size

MAX_UNPACKED = 1 << 37
"""Most bytes that the layers of one image may unpack to: 128 GiB, more than a shed's disk can hold."""
MAX_RATIO, RATIO_FROM = 100, 1 << 30
"""Most bytes that may be written for each byte that was read, once more than `RATIO_FROM` are.  Megabytes of zeros are
holes, which are not written: an honest layer may have gigabytes of them.  Text and code come to 3 to 20.
"""
MAX_MEMBERS = 2_000_000
"""Most files that the layers of one image may list, all together."""
MAX_MEMORY = 768 << 20
"""Most bytes of memory, about, that all lists of one image may take: 2,000,000 files, or fewer with long names and
attributes.
"""
TOO_LARGE = "IMAGE_TOO_LARGE"


class Unpacking:
    """The counts of one image, for all its layers; used by several threads."""

    def __init__(
        self,
        reserve: Reserve | None = None,
        *,
        bytes_: int = MAX_UNPACKED,
        members: int = MAX_MEMBERS,
        memory: int = MAX_MEMORY,
    ) -> None:
        self.reserve = reserve
        self.most_bytes, self.most_members, self.most_memory = bytes_, members, memory
        self.read = self.unpacked = self.written = self.members = self.memory = 0
        self.lock = threading.Lock()

    def part(self, what: str) -> Part:
        """Return the counts as the layer called `what` uses them."""
        return Part(self, what)


class Part:
    """One layer; what it takes is counted for the image."""

    def __init__(self, image: Unpacking, what: str) -> None:
        self.what = what
        """For messages."""
        self._image = image

    def took(self, count: int) -> None:
        """Count bytes of the layer as it came."""
        with self._image.lock:
            self._image.read += count

    def spend(self, count: int, *, stored: bool = True) -> None:
        """Take `count` bytes that came out, which are about to be written; not `stored`, they become a hole.

        Raises `DataError` (IMAGE_TOO_LARGE) and `StorageError` (DISK_RESERVE).
        """
        image = self._image
        with image.lock:
            image.unpacked += count
            image.written += count if stored else 0
            read, unpacked, written = image.read, image.unpacked, image.written
        if unpacked > image.most_bytes:
            raise self._refused(
                f"the image unpacks to more than {format_size(image.most_bytes)}", "make the image smaller"
            )
        if written > RATIO_FROM and written > MAX_RATIO * read:
            raise self._refused(
                f"{format_size(read)} unpack to {format_size(written)} and more, over {MAX_RATIO} times as much",
                "give the image with layers that are not compressed: skopeo copy … docker-archive:FILE",
            )
        if stored and image.reserve is not None:
            image.reserve.check(count)

    def member(self, weight: int) -> None:
        """Take a file and `weight` bytes of memory for it.  Raises `DataError` (IMAGE_TOO_LARGE)."""
        image = self._image
        with image.lock:
            image.members += 1
            image.memory += weight
        if image.members > image.most_members:
            raise self._refused(
                f"the image has more than {image.most_members:,} files, all layers together", "make it of fewer files"
            )
        if image.memory > image.most_memory:
            raise self._refused(
                f"the names and attributes of {image.members:,} files take "
                f"more than {format_size(image.most_memory)} of memory",
                "make it of fewer files",
            )

    def _refused(self, message: str, instead: str) -> DataError:
        return DataError(f"{self.what}: {message}", code=TOO_LARGE, hint=f"if that is no mistake, {instead}")
