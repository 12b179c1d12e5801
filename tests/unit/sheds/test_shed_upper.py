"""The writable layer out of a runtime blob, and the guest user out of a root: read from real EROFS images."""

import stat
import struct
import subprocess
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from shed.entries import Entry
from shed.erofs.writer import write_image
from shed.errors import DataError, StorageError, UsageError
from shed.images.bootkit.upper import pack_upper
from shed.sheds.upper import check_upper_size, has_errors, make_upper, repair, template
from shed.sheds.workspace import guest_owner

MIB = 1 << 20
GIB = 1 << 30


class Bytes:
    """A file's content."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def pread(self, length: int, offset: int) -> bytes:
        """Return a part."""
        return self._data[offset : offset + length]


def image(path: Path, files: dict[bytes, bytes]) -> Path:
    """Write an EROFS image with these files."""
    folders = {
        b"/".join(parts[:depth]) for parts in (name.split(b"/") for name in files) for depth in range(1, len(parts))
    }
    entries = [Entry(b"", stat.S_IFDIR | 0o755), *(Entry(folder, stat.S_IFDIR | 0o755) for folder in sorted(folders))]
    entries += [Entry(name, stat.S_IFREG | 0o644, size=len(data), content=Bytes(data)) for name, data in files.items()]
    with path.open("w+b") as out:
        write_image(sorted(entries, key=lambda entry: entry.path.split(b"/")), out)
    return path


def ext4(size: int = 16 * MIB) -> bytes:
    """Return bytes that look like a sparse ext4 from afar."""
    data = bytearray(size)
    data[1080:1082] = b"\x53\xef"
    data[8 * MIB : 8 * MIB + 9] = b"a bitmap!"
    return bytes(data)


def ready(folder: Path, size: int) -> bytes:
    """Return such an ext4, of `size` bytes, as a boot kit packs it."""
    path = folder / "to-pack"
    with path.open("wb") as file:
        for offset in (0, 8 * MIB, size - 4096):
            file.seek(offset)
            file.write(ext4()[offset : offset + 4096] if offset < 16 * MIB else b"the last".ljust(4096, b"\0"))
    data = pack_upper(path)
    path.unlink()
    return data


def packed(*numbers: int, size: int = GIB, magic: bytes = b"shedup01", first: bytes = ext4()[:4096]) -> bytes:
    """Return a packed file system with blocks of these numbers; its checksum is right whatever they are."""
    body = struct.pack(f"<{len(numbers)}I", *numbers) + first + bytes(4096 * (len(numbers) - 1))
    return magic + struct.pack("<III", size // 4096, len(numbers), zlib.crc32(body)) + body


def test_what_the_guests_kernel_noted_is_seen_until_it_is_repaired(tmp_path: Path) -> None:
    """A real file system, with what a failed write leaves in it; the command that the user is told is the one that
    helps.
    """
    path = tmp_path / "an upper.ext4"
    assert not has_errors(path)
    subprocess.run(["mkfs.ext4", "-q", str(path), "8M"], check=True)
    assert not has_errors(path)
    subprocess.run(["debugfs", "-w", "-R", "set_super_value state 3", str(path)], check=True, capture_output=True)
    assert has_errors(path)
    subprocess.run(repair(path), shell=True, check=True, capture_output=True)
    assert not has_errors(path)


def test_the_template_comes_out_of_the_runtime_with_its_holes(tmp_path: Path) -> None:
    """Same bytes, hardly any blocks; the second time nothing is read."""
    runtime = image(tmp_path / "0123", {b"share/upper.ext4": ext4()})
    path = template(tmp_path, runtime, 5 * GIB)
    assert path.name == "upper-0123.ext4"
    assert path.read_bytes() == ext4()
    assert path.stat().st_blocks * 512 < MIB
    assert path.stat().st_mode & 0o777 == 0o400
    runtime.unlink()
    assert template(tmp_path, runtime, GIB) == path


@pytest.mark.parametrize(("wanted", "taken"), [(1, 1), (4, 1), (5, 5), (19, 5), (20, 20), (100, 20)])
def test_the_largest_that_is_not_too_large_is_taken(tmp_path: Path, wanted: int, taken: int) -> None:
    """Its bytes come back, its holes too, and it is the file of its size; names that say no size are passed over."""
    kit = {
        b"share/upper.ext4": ext4(),
        b"share/uppers/notes": b"x",
        **{b"share/uppers/%dG" % gib: ready(tmp_path, gib * GIB) for gib in (20, 1, 5)},
    }
    runtime = image(tmp_path / "0123", kit)
    path = template(tmp_path, runtime, wanted * GIB)
    assert path.name == f"upper-0123-{taken}G.ext4"
    assert path.stat().st_size == taken * GIB
    assert path.stat().st_blocks * 512 < MIB
    assert path.stat().st_mode & 0o777 == 0o400
    with path.open("rb") as file:
        assert file.read(16 * MIB) == ext4()
        file.seek(-4096, 2)
        assert file.read() == b"the last".ljust(4096, b"\0")
    runtime.unlink()
    assert template(tmp_path, runtime, wanted * GIB) == path
    target = tmp_path / "dev/upper.ext4"
    make_upper(path, target, wanted * GIB)
    assert target.stat().st_size == wanted * GIB
    assert target.stat().st_blocks * 512 < MIB


def test_a_layer_that_is_smaller_than_all_ready_ones(tmp_path: Path) -> None:
    """It starts as the small one."""
    runtime = image(tmp_path / "0123", {b"share/upper.ext4": ext4(), b"share/uppers/2G": ready(tmp_path, 2 * GIB)})
    assert template(tmp_path, runtime, GIB).read_bytes() == ext4()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a ready-made"),
        (packed(0)[:19], "not a ready-made"),
        (packed(0, magic=b"shedup02"), "not a ready-made"),
        (packed(0, size=2 * GIB), "instead of"),
        (packed(0)[:-1], "damaged"),
        (packed(0) + bytes(4), "damaged"),
        (packed(0)[:-1] + b"!", "damaged"),
        (packed(0)[:12] + b"\xff\xff\xff\xff" + packed(0)[16:], "damaged"),
        (packed(0, GIB // 4096), "in disorder or beyond the end"),
        (packed(0, 7, 7), "in disorder"),
        (packed(7, 0), "in disorder"),
        (packed(0, first=bytes(4096)), "not ext4"),
        (packed(1), "not ext4"),
        (packed(*range(4096)), "are too many"),
    ],
)
def test_a_damaged_one_is_told(tmp_path: Path, data: bytes, problem: str) -> None:
    """By its name and that of the blob; the small one beside it is no way out, and nothing is left that would be taken
    for a template.
    """
    runtime = image(tmp_path / "0123", {b"share/upper.ext4": ext4()[:4096], b"share/uppers/1G": data})
    with pytest.raises(DataError, match=f"share/uppers/1G in the runtime blob {runtime}: .*{problem}") as caught:
        template(tmp_path, runtime, GIB)
    assert caught.value.hint
    assert "bootkit build" in caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} == {"0123", ".lock"}


def test_ready_ones_that_are_no_folder(tmp_path: Path) -> None:
    """An error that says so, and of which blob."""
    runtime = image(tmp_path / "0123", {b"share/upper.ext4": ext4(), b"share/uppers": b"a file"})
    with pytest.raises(DataError, match=f"share/uppers in the runtime blob {runtime}: .*not a directory"):
        template(tmp_path, runtime, GIB)


def test_many_creates_at_once_extract_once(tmp_path: Path) -> None:
    """They wait for the first one, and all get a whole file."""
    runtime = image(tmp_path / "0123", {b"share/upper.ext4": ext4()})
    inodes = []
    threads = [
        threading.Thread(target=lambda: inodes.append(template(tmp_path, runtime, GIB).stat().st_ino)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inodes) == 8
    assert len(set(inodes)) == 1


@pytest.mark.parametrize("files", [{b"bin/python": b"x"}, {b"share/upper.ext4": b"not ext4" * 1000}])
def test_a_runtime_without_an_upper_is_told(tmp_path: Path, files: dict[bytes, bytes]) -> None:
    """And no template is left that would be taken for one."""
    runtime = image(tmp_path / "0123", files)
    with pytest.raises(DataError, match=r"share/upper\.ext4"):
        template(tmp_path, runtime, GIB)
    assert {path.name for path in tmp_path.iterdir()} == {"0123", ".lock"}


def test_a_clone_is_longer_sparse_and_its_own(tmp_path: Path) -> None:
    """Its size is what was asked; writing to it leaves the template alone."""
    source = tmp_path / "template"
    source.write_bytes(ext4())
    upper = tmp_path / "dev/upper.ext4"
    make_upper(source, upper, 100 * GIB)
    found = upper.stat()
    assert (found.st_size, found.st_mode & 0o777) == (100 * GIB, 0o600)
    assert found.st_blocks * 512 <= 16 * MIB
    with upper.open("r+b") as file:
        assert file.read(16 * MIB) == ext4()
        file.seek(0)
        file.write(b"changed")
    assert source.read_bytes() == ext4()


def test_an_upper_is_not_made_twice(tmp_path: Path) -> None:
    """Nobody's files are overwritten."""
    source = tmp_path / "template"
    source.write_bytes(ext4())
    make_upper(source, tmp_path / "dev/upper.ext4", GIB)
    with pytest.raises(FileExistsError):
        make_upper(source, tmp_path / "dev/upper.ext4", GIB)


def test_too_little_space_is_told_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written."""
    source = tmp_path / "template"
    source.write_bytes(ext4())
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10 * MIB))
    with pytest.raises(StorageError, match="10 MiB free") as caught:
        make_upper(source, tmp_path / "dev/upper.ext4", GIB)
    assert caught.value.code == "NO_SPACE"


@pytest.mark.parametrize("size", [0, GIB - 1, 100 * GIB + 1, -1])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    """1 to 100 GiB."""
    with pytest.raises(UsageError):
        check_upper_size(size)


@pytest.mark.parametrize(
    ("passwd", "owner"),
    [
        (b"root:x:0:0::/root:/bin/sh\nshed:x:1000:1001::/home/shed:/bin/sh\n", (1000, 1001)),
        (b"root:x:0:0::/root:/bin/sh\n", (0, 0)),
        (b"shed:x:many:1001::\nshed\n\xff\xfe::\n", (0, 0)),
        (b"", (0, 0)),
        (None, (0, 0)),
    ],
)
def test_the_workspace_belongs_to_the_user_who_runs_commands(
    tmp_path: Path, passwd: bytes | None, owner: tuple[int, int]
) -> None:
    """`shed` of the image, else root."""
    root = image(tmp_path / "root", {b"etc/other": b"x"} if passwd is None else {b"etc/passwd": passwd})
    assert guest_owner(root, "") == owner


@pytest.mark.parametrize(
    ("user", "owner"),
    [
        ("node", (1001, 7)),
        ("node:root", (1001, 7)),
        ("1001", (1001, 7)),
        ("root", (0, 0)),
        ("4242", (4242, 4242)),
        ("x", (0, 0)),
    ],
)
def test_the_workspace_belongs_to_the_user_of_the_image(tmp_path: Path, user: str, owner: tuple[int, int]) -> None:
    """Whom it names, by name or number, with an entry or without."""
    passwd = b"root:x:0:0::/root:/bin/sh\nshed:x:1000:1000::/home/shed:/bin/sh\nnode:x:1001:7::/home/node:/bin/sh\n"
    assert guest_owner(image(tmp_path / "root", {b"etc/passwd": passwd}), user) == owner


def test_what_a_killed_extraction_left_is_removed(tmp_path: Path) -> None:
    """By the next one."""
    runtime = image(tmp_path / "0123", {b"share/upper.ext4": ext4()})
    (tmp_path / ".upper-0123.ext4.abc.tmp").write_bytes(b"half")
    template(tmp_path, runtime, GIB)
    assert not (tmp_path / ".upper-0123.ext4.abc.tmp").exists()
