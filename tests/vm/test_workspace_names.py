"""A shared folder whose folders the guest keeps: fewer questions, and never an old answer; and what is mapped into
memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
_DEEP = "a/b/c/d"
_COUNT = f"""
cd /; mkdir -p /tmp/t; mount -t tracefs t /tmp/t 2>/dev/null
echo 1 > /tmp/t/events/9p/9p_client_req/enable; echo > /tmp/t/trace
stat /workspace/{_DEEP}/file >/dev/null
echo 0 > /tmp/t/events/9p/9p_client_req/enable
grep -c P9_TWALK /tmp/t/trace; grep -c P9_TGETATTR /tmp/t/trace
"""
_MAPPED = """
import mmap, os
fd = os.open('/workspace/mapped', os.O_RDWR)
with mmap.mmap(fd, 8192) as mapped:
    assert mapped[:5] == b'host!', mapped[:5]
    mapped[4096:4101] = b'guest'
    assert os.pread(fd, 5, 4096) == b'guest'
    os.pwrite(fd, b'write', 0)
    assert mapped[:5] == b'write'
    mapped[5:10] = b'later'
"""
_SHOW = "print(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:].decode(), end='')"


class Shared:
    """A machine with a shed, ``dev``, and its folder."""

    def __init__(self, root: Path, store: LayoutStore, way: str) -> None:
        self.folder = root / "shared"
        (self.folder / _DEEP).mkdir(parents=True)
        (self.folder / _DEEP / "file").write_text("one\n")
        copy_store(store, root / "data/images")
        self.machine = Machine(root, way=way)
        self.machine.shed("create", "dev", "--image", "busybox", "--local-dir", str(self.folder))

    def sh(self, script: str) -> str:
        """Return what a script in the shed prints, errors too."""
        return self.machine.shed("exec", "-u", "root", "dev", "--", "sh", "-c", f"exec 2>&1; {script}\ntrue")

    def python(self, program: str) -> str:
        """Return what a program prints that the runtime's Python runs in the shed."""
        lib = "/run/shed-runtime/lib"
        words = [
            f"{lib}/ld-linux-x86-64.so.2",
            "--library-path",
            lib,
            "/run/shed-runtime/bin/python3",
            "-I",
            "-S",
            "-c",
        ]
        return self.machine.shed("exec", "-u", "root", "dev", "--", *words, program)

    def asked(self) -> tuple[int, int]:
        """Return how many names, and how many attributes, the guest asks the host for to look at a deep file."""
        walks, attributes = map(int, self.sh(_COUNT).split())
        return walks, attributes

    def wait_until_kept(self) -> None:
        """Wait until the folders are held: of a path, its last part alone is asked for."""
        wait_until(lambda: self.asked()[0] == 1, what="one question for a name")


@pytest.fixture(scope="module")
def shared(way: str, small_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    made = Shared(tmp_path_factory.mktemp("shared"), small_store, way)
    yield made
    made.machine.end()


def test_a_deep_path_is_one_question(shared: Shared) -> None:
    """For the file's name, and two for its attributes; which are never old: size and content are the host's."""
    shared.wait_until_kept()
    assert shared.asked() == (1, 2)
    for text in ("two\n", "longer than two\n", ""):
        (shared.folder / _DEEP / "file").write_text(text)
        assert shared.sh(f"cat /workspace/{_DEEP}/file; stat -c %s /workspace/{_DEEP}/file") == f"{text}{len(text)}\n"


def test_names_that_go_and_come_on_the_host(shared: Shared) -> None:
    """Removed, replaced by a file, a folder, a link; a folder that moves, and one that takes its place."""
    shared.wait_until_kept()
    top = shared.folder / "a"

    def seen(script: str, expected: str) -> None:
        wait_until(lambda: shared.sh(f"cd /workspace/a; {script}") == expected, what=f"{script}: {expected}")

    shutil.rmtree(top / "b/c/d")
    seen("test -e b/c/d || echo gone", "gone\n")
    (top / "b/c/d").write_text("file\n")
    seen("cat b/c/d", "file\n")
    (top / "b/c/d").unlink()
    (top / "b/c/target").mkdir()
    (top / "b/c/target/file").write_text("target\n")
    (top / "b/c/d").symlink_to("target")
    seen("readlink b/c/d; cat b/c/d/file", "target\ntarget\n")
    (top / "b").rename(top / "moved")
    seen("test -e b || cat moved/c/d/file", "target\n")
    (top / "b/c/d").mkdir(parents=True)
    (top / "b/c/d/file").write_text("one\n")
    seen("cat b/c/d/file; cat moved/c/d/file", "one\ntarget\n")
    shutil.rmtree(top / "moved")


def test_what_was_mapped_is_not_kept(shared: Shared) -> None:
    """A file that the host writes to in place, or saves under its name, is new when it is mapped again."""
    shared.wait_until_kept()
    file = shared.folder / _DEEP / "file"
    for text in ("first\n", "second\n", "third\n"):
        if text == "third\n":
            file.with_name("new").write_text(text)
            file.with_name("new").rename(file)
        else:
            file.write_text(text)
        assert shared.python(f"import mmap; f = open('/workspace/{_DEEP}/file', 'rb')\n{_SHOW}") == text


def test_the_guests_own_changes(shared: Shared) -> None:
    """As in any folder: what it removes is gone at once, and what it makes is there, under names that were held."""
    shared.wait_until_kept()
    script = f"""cd /workspace/{_DEEP}; rm file; test -e file || echo gone; mkdir file; rmdir file
    echo x > file; cat file
    mv file other; test -e file || cat other; mv other file; cd ../..; mv c moved; cat moved/d/file; rm -r moved
    test -e c || echo all gone; mkdir -p c/d; echo one > c/d/file"""
    assert shared.sh(script) == "gone\nx\nx\nx\nall gone\n"
    assert (shared.folder / _DEEP / "file").read_text() == "one\n"


def test_a_server_that_comes_back_keeps_them_again(shared: Shared) -> None:
    """While there is none, the guest asks for everything; nothing is old."""
    shared.wait_until_kept()
    shared.machine.shed("server", "stop")
    (shared.folder / _DEEP / "file").unlink()
    (shared.folder / "a/b").rename(shared.folder / "a/x")
    shutil.copytree(shared.folder / "a/x", shared.folder / "a/b")
    (shared.folder / _DEEP / "file").write_text("meanwhile\n")
    assert shared.sh(f"cat /workspace/{_DEEP}/file; ls /workspace/a") == "meanwhile\nb\nx\n"
    shared.wait_until_kept()


def test_what_is_mapped_is_shared(shared: Shared) -> None:
    """Between programs of the guest by memory and by reading and writing, and with the host once it is unmapped."""
    mapped = shared.folder / "mapped"
    mapped.write_bytes(b"host!" + bytes(8187))
    owner = shared.folder.stat()
    os.chown(mapped, owner.st_uid, owner.st_gid)
    assert shared.python(_MAPPED) == ""
    assert mapped.read_bytes() == b"writelater" + bytes(4086) + b"guest" + bytes(4091)


def test_it_ends(shared: Shared) -> None:
    """What holds names is no obstacle to a stop, nor to a start after it."""
    shared.wait_until_kept()
    shared.machine.shed("stop", "dev")
    shared.machine.shed("start", "dev")
    shared.wait_until_kept()
