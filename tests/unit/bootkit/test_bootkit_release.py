"""A release file that Debian once signed is not enough: it must be this suite's, still good, and no older than the
pins.
"""

from __future__ import annotations

import email.utils
import hashlib
import lzma
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shed.errors import DataError
from shed.images.bootkit import debian_archive
from shed.images.bootkit.debian_archive import DebianArchive
from shed.images.bootkit.debs import LOCK_FILE, read_lock, read_released, write_lock

DAY = 24 * 3600
_INDEX = b"Package: tool\nVersion: 1\nArchitecture: amd64\nFilename: pool/tool.deb\nSize: 1\nSHA256: 00\n"
Release = Callable[..., DebianArchive]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a signing key of the tests' own; return gpg's folder, in which ``keyring.gpg`` is the public half."""
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    subprocess.run([*gpg, "--passphrase", "", "--quick-gen-key", "archive", "ed25519"], check=True)
    subprocess.run([*gpg, "--output", str(home / "keyring.gpg"), "--export"], check=True)
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)


@pytest.fixture
def release(key: Path, tmp_path: Path) -> Release:
    """Make a mirror, a folder, whose release file of ``suite`` has these fields; it is really signed."""

    def make(suite: str = "test", **fields: str) -> DebianArchive:
        folder = tmp_path / f"dists/{suite}"
        index = folder / "main/binary-amd64/Packages.xz"
        index.parent.mkdir(parents=True)
        index.write_bytes(lzma.compress(_INDEX))
        said = {
            "Codename": suite,
            "Date": date(-DAY),
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }
        text = "".join(f"{name}: {value}\n" for name, value in said.items())
        text += f"SHA256:\n {hashlib.sha256(index.read_bytes()).hexdigest()} 1 main/binary-amd64/Packages.xz\n"
        sign = [
            "gpg",
            "--homedir",
            str(key),
            "--batch",
            "--quiet",
            "--output",
            str(folder / "InRelease"),
            "--clearsign",
        ]
        subprocess.run(sign, check=True, input=text.encode())
        return DebianArchive(mirror=f"file://{tmp_path}", suite=suite, keyring=key / "keyring.gpg")

    return make


def date(offset: float) -> str:
    """Return the time `offset` seconds from now as release files have it."""
    return email.utils.formatdate(time.time() + offset, usegmt=True).replace("GMT", "UTC")


def test_a_release_file_that_is_this_suites_and_good(release: Release) -> None:
    """By its codename, with a date that is not over."""
    assert release(Valid_Until=date(DAY)).newest("tool").version == "1"


def test_a_suite_by_its_other_name(release: Release) -> None:
    """As ``unstable`` is sid."""
    assert release("unstable", Codename="sid", Suite="unstable").newest("tool").version == "1"


def test_the_release_file_of_another_suite_is_refused_each_time(release: Release) -> None:
    """Signed by the same key, but with other packages, such as those of years ago; 6aee119 took it."""
    archive = release("trixie", Codename="buster", Suite="oldoldstable")
    for _ in range(2):
        with pytest.raises(DataError, match=r"another suite for trixie \(Codename: 'buster', Suite: 'oldoldstable'\)"):
            archive.newest("tool")
    with pytest.raises(DataError, match="another suite"):
        archive.released()


def test_a_release_file_whose_time_is_over_is_refused(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wants it says so; 6aee119 took it from anybody."""
    archive = release(Valid_Until=date(-60))
    with pytest.raises(DataError, match="was good until 20") as caught:
        archive.newest("tool")
    assert caught.value.code == "RELEASE_TOO_OLD"
    assert "SHED_DEBIAN_CHECK_VALID_UNTIL=no" in (caught.value.hint or "")
    monkeypatch.setenv("SHED_DEBIAN_CHECK_VALID_UNTIL", "no")
    assert archive.newest("tool").version == "1"


def test_a_release_file_from_before_the_pins_is_refused(release: Release) -> None:
    """Stable releases are good for ever, so the lock file says what is a replay; 6aee119 had no such date."""
    archive = release(Date=date(-90 * DAY))
    assert archive.newest("tool").version == "1"
    pinned = replace(archive, not_before=int(time.time()) - 30 * DAY, _index=None)
    with pytest.raises(DataError, match="the pinned packages are of 20"):
        pinned.newest("tool")
    assert pinned.released() < pinned.not_before  # images made of an old snapshot are dated by it, as ever


def test_a_mirror_that_names_a_time_may_be_old(release: Release, tmp_path: Path) -> None:
    """As those of snapshot.debian.org, which serve what was."""
    old = release(Date=date(-90 * DAY), Valid_Until=date(-80 * DAY))
    (tmp_path / "20260101T000000Z").symlink_to(tmp_path)
    snapshot = replace(old, mirror=f"{old.mirror}/20260101T000000Z", not_before=int(time.time()))
    assert snapshot.newest("tool").version == "1"


def test_a_release_file_without_end_is_not_read_into_memory(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature is looked at last, so a hostile mirror could send anything."""
    archive = release()
    monkeypatch.setattr(debian_archive, "_MAX_RELEASE", 100)
    with pytest.raises(DataError, match="InRelease has more than"):
        archive.newest("tool")


def test_the_lock_file_says_of_which_release_its_packages_are(tmp_path: Path) -> None:
    """A lock file of before, without it, is read as one without a limit."""
    assert read_released(LOCK_FILE) > 0
    path = tmp_path / "lock.json"
    write_lock(read_lock(), DebianArchive(), path, released=5)
    assert (read_released(path), read_lock(path)) == (5, read_lock())
    path.write_text('{"suite": "trixie", "packages": {}}')
    assert read_released(path) == 0
