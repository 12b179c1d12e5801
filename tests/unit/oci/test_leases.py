"""Leases: seen by a prune while their holder lives, waited for, and gone with the holder."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shed.errors import DataError
from shed.oci.digest import digest_bytes
from shed.oci.leases import Leased, lease, pruning, unpruned

A, B, C = (digest_bytes(letter) for letter in (b"a", b"b", b"c"))
NOTHING = Leased(frozenset(), frozenset())
HOLD = "import sys; from pathlib import Path; from shed.oci.leases import *\nroot = Path(sys.argv[1])\n"
"""How the programs start that tests run as other processes."""


def holding(root: Path, body: str) -> subprocess.Popen[str]:
    """Run a program that holds something, and wait until it does; it lets go when its standard input ends."""
    program = f"{HOLD}{body}\n print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_what_leases_name_is_seen(tmp_path: Path) -> None:
    """All that live ones name, by kind; nothing afterwards."""
    with pruning(tmp_path) as found:
        assert found == NOTHING
    with lease(tmp_path) as one, lease(tmp_path) as other:
        one.blobs(A, B)
        other.image(C)
        one.image(A)
        with pruning(tmp_path) as found:
            assert found == Leased(frozenset({A, B}), frozenset({A, C}))
    with pruning(tmp_path) as found:
        assert found == NOTHING
    assert list((tmp_path / "leases").iterdir()) == []


def test_another_process_holds_a_lease_until_it_is_killed(tmp_path: Path) -> None:
    """A kill ends the lease; its file goes with the next prune."""
    with holding(tmp_path, f"with lease(root) as one:\n one.blobs({A!r})") as process:
        with pruning(tmp_path) as found:
            assert found.blobs == {A}
        process.send_signal(signal.SIGKILL)
    assert len(list((tmp_path / "leases").iterdir())) == 1
    with pruning(tmp_path) as found:
        assert found == NOTHING
    assert list((tmp_path / "leases").iterdir()) == []


@pytest.mark.parametrize("step", ["take", "grow", "unpruned"])
def test_a_prune_under_way_is_waited_for(tmp_path: Path, step: str) -> None:
    """Taking a lease, naming more in one, and looking at what must not go."""

    done = threading.Event()

    def work() -> None:
        if step == "take":
            with lease(tmp_path):
                pass
        elif step == "grow":
            one.blobs(A)
        else:
            with unpruned(tmp_path):
                pass
        done.set()

    with lease(tmp_path) as one, ThreadPoolExecutor(1) as pool:
        with holding(tmp_path, "with pruning(root):") as process:
            task = pool.submit(work)
            assert not done.wait(0.3)
            process.communicate()
        task.result(timeout=60)
        with pruning(tmp_path) as found:
            assert found.blobs == ({A} if step == "grow" else set())


def test_a_prune_waits_for_whoever_looks(tmp_path: Path) -> None:
    """What was seen is still there at the end of the look."""
    with holding(tmp_path, "with unpruned(root):") as process, ThreadPoolExecutor(1) as pool:
        done = threading.Event()

        def prune() -> None:
            with pruning(tmp_path):
                done.set()

        task = pool.submit(prune)
        assert not done.wait(0.3)
        process.communicate()
        task.result(timeout=60)


def test_threads_share_a_lease(tmp_path: Path) -> None:
    """No line is lost or torn."""
    digests = [digest_bytes(bytes([number])) for number in range(200)]
    with lease(tmp_path) as one:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one.blobs, digests))
        with pruning(tmp_path) as found:
            assert found.blobs == set(digests)


@pytest.mark.parametrize("content", [b"junk\n", b"blob sha256:12\n", b"\xff\xfe\n", b"half " + A.encode()])
def test_a_lease_that_is_not_understood(tmp_path: Path, content: bytes) -> None:
    """It may name anything, so there is no prune as long as it lives."""
    with lease(tmp_path):
        (path,) = (tmp_path / "leases").iterdir()
        with path.open("ab") as file:
            file.write(content)
        with pytest.raises(DataError, match=r"lease .*/leases/\d+-[0-9a-f]+ cannot be understood"), pruning(tmp_path):
            pytest.fail("it pruned")
