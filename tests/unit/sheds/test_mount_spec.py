"""How folders of the host are written, and which ones a shed cannot have."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.errors import UsageError
from shed.sheds.mountspec import MOST, Mount, check_target, checked


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a:/b", Mount("/a", "/b", "rw")),
        ("/a:/b:ro", Mount("/a", "/b", "ro")),
        ("/a:/b:git-rw", Mount("/a", "/b", "git-rw")),
        ("/a:ro:/b", Mount("/a:ro", "/b", "rw")),
        ("/a:/b:/c:rw", Mount("/a:/b", "/c", "rw")),
        ("/a://b/./c/", Mount("/a", "/b/c", "rw")),
        ("/a:/ro", Mount("/a", "/ro", "rw")),
        ("/a:/var/lib/x", Mount("/a", "/var/lib/x", "rw")),
    ],
)
def test_what_is_meant(text: str, mount: Mount) -> None:
    """The place in the shed and the mode stand last; all before is the folder.  It can be written again."""
    assert Mount.parse(text) == mount
    assert Mount.parse(str(mount)) == mount


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "/a",
        ":/b",
        "/a:b",
        "/a:/b:wild",
        "/a:/b:",
        "/a:/",
        "/a:/x/..",
        "/a:/x/../../proc",
        "/a:/proc",
        "/a:/proc/sys",
        "/a:/sys/x",
        "/a:/dev/shm",
        "/a:/run/shed",
        "/a:/usr",
        "/a:/etc/",
        "/a:/b\n",
        "/a:/b\x00",
        "/a:/b\x1b[2J",
        "/a:/" + "x" * 256,
        "/a:" + "/xx" * 400,
    ],
)
def test_what_is_refused(text: str) -> None:
    """No place, one that is the system's, and one that a name cannot be; all by one code."""
    with pytest.raises(UsageError) as caught:
        Mount.parse(text)
    assert caught.value.code == "INVALID_MOUNT"


def test_folders_that_a_shed_cannot_have_together(tmp_path: Path) -> None:
    """The same, one in the other, also by a link; and places in each other.  Beside each other is fine."""
    for name in ("a/in", "ab", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a/in")
    a, ab, c = (f"{tmp_path}/{name}" for name in ("a", "ab", "c"))
    assert checked([f"{a}:/x", f"{ab}:/xy"], c) == [Mount(a, "/x"), Mount(ab, "/xy")]
    for wrong in (f"{a}:/y", f"{a}/in:/y", f"{tmp_path}/link:/y", f"{tmp_path}:/y", f"{c}:/x", f"{c}:/x/y", f"{c}:/"):
        with pytest.raises(UsageError, match="cannot be mounted"):
            checked([f"{a}:/x", wrong], None)
    for wrong in (f"{a}/in:/x", f"{c}:/workspace", f"{c}:/workspace/x"):
        with pytest.raises(UsageError, match="cannot be mounted"):
            checked([wrong], a)
    with pytest.raises(UsageError, match="--local-dir"):
        checked([f"{c}:/workspace"], None)


def test_beside_a_folder_that_cannot_be_looked_at(tmp_path: Path) -> None:
    """It is not known what that is, so nothing is mounted beside it; the error names it."""
    (tmp_path / "a").mkdir()
    with pytest.raises(UsageError, match=f"it is in {tmp_path}/gone/b: No such file") as caught:
        checked([f"{tmp_path}/a:/a"], None, [Mount(f"{tmp_path}/gone/b", "/b")])
    assert "shed mount rm" in str(caught.value.hint)


def test_what_is_no_folder(tmp_path: Path) -> None:
    """What is refused for a workspace is refused here; so are too many."""
    (tmp_path / "file").touch()
    for source in ("relative", f"{tmp_path}/file", f"{tmp_path}/missing"):
        with pytest.raises(UsageError) as caught:
            checked([f"{source}:/x"], None)
        assert caught.value.code == "INVALID_LOCAL_DIR"
    with pytest.raises(UsageError, match="all of the host"):
        checked(["/:/x"], None)
    for number in range(MOST + 1):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(UsageError, match=f"{MOST} at most"):
        checked([f"{tmp_path}/{number}:/x{number}" for number in range(MOST + 1)], None)


def test_a_place() -> None:
    """It is written in one way."""
    assert check_target("//a//b/") == "/a/b"
