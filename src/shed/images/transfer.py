"""Moving several blobs at once: bytes are added up for progress, and when one fails the others give up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from shed.oci.digest import Digest
from shed.progress import BlobEvent, Progress, Stop

AT_ONCE = 3
"""Blobs that are moved at the same time unless the server's configuration says otherwise."""
_REPORT_EVERY = 4 << 20
"""Bytes between two progress events."""
_T = TypeVar("_T")


class Counter:
    """Adds up bytes from several threads and reports them now and then."""

    def __init__(self, progress: Progress, label: str, total: int | None, stop: Stop) -> None:
        self.done = 0
        """Bytes so far."""
        self.had = 0
        """Those of them that were here, and did not have to be moved."""
        self._progress = progress
        self._label = label
        self._total = total
        self._stop = stop
        self._next_report = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count `count` bytes more.  Raises `UnavailableError` when the work should be given up."""
        self._stop.check()
        with self._lock:
            self.done += count
            if self.done >= self._next_report or self.done == self._total:
                self._next_report = self.done + _REPORT_EVERY
                self._progress.bytes(self._label, self.done, self._total)

    def skip(self, count: int) -> None:
        """Count `count` bytes that are here; a negative number takes back what was counted."""
        with self._lock:
            self.had += count
        self.add(count)


class BlobCounter:
    """The part of one blob in what `counter` adds up, reported by itself as well; for one thread."""

    def __init__(self, counter: Counter, progress: Progress, digest: Digest, label: str, total: int | None) -> None:
        self._counter = counter
        self._progress = progress
        self._digest = digest
        self._label = label
        self._total = total
        self._done = 0
        self._reported = 0
        self.report("downloading")

    def add(self, count: int) -> None:
        """Count `count` bytes that were moved; see `Counter.add`."""
        self._counter.add(count)
        self._moved(count)

    def skip(self, count: int) -> None:
        """Count `count` bytes that are here; see `Counter.skip`."""
        self._counter.skip(count)
        self._moved(count)

    def report(self, status: str) -> None:
        """Tell how far the blob is; `status` is that of a `BlobEvent`."""
        self._reported = self._done
        self._progress.blob(BlobEvent(self._digest, self._label, status, self._done, self._total))

    def _moved(self, count: int) -> None:
        self._done += count
        if abs(self._done - self._reported) >= _REPORT_EVERY:
            self.report("downloading")


def at_once(work: Callable[[_T], object], items: Iterable[_T], stop: Stop, *, most: int = AT_ONCE) -> None:
    """Do `work` on all `items`, `most` at a time; the first failure stops the others and is raised."""
    with ThreadPoolExecutor(most) as pool:
        tasks = [pool.submit(work, item) for item in items]
        try:
            for task in as_completed(tasks):
                task.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
