"""Packages: from a mirror of our own, pinned or newest, whole or damaged."""

import hashlib
import io
import lzma
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import zstandard

from shed.errors import DataError, NotFoundError, UnavailableError
from shed.images.bootkit import debs, packages
from shed.images.bootkit.debian_archive import DebianArchive, Package, parse_index
from shed.images.bootkit.debs import Deb, fetch_debs, newest, read_lock, write_lock
from shed.progress import Progress, WarningEvent


def make_deb(files: dict[str, bytes | str], suffix: str = ".xz") -> bytes:
    """Return a package with `files`; a `str` is a symlink's target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            info.size = 0 if isinstance(content, str) else len(content)
            tar.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
    compress: dict[str, Callable[[bytes], bytes]] = {
        ".xz": lzma.compress,
        ".zst": zstandard.ZstdCompressor().compress,
        "": bytes,
    }
    members = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", b"odd"),
        (f"data.tar{suffix}", compress[suffix](out.getvalue())),
    ]
    return b"!<arch>\n" + b"".join(_ar_member(name, data) for name, data in members)


def _ar_member(name: str, data: bytes) -> bytes:
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)


def package_of(data: bytes, version: str = "1.0", name: str = "tool") -> Package:
    """Return the description of the package `data`."""
    return Package(
        name, version, "amd64", f"pool/{name}_{version}_amd64.deb", len(data), hashlib.sha256(data).hexdigest()
    )


class Quiet(SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


class Mirror:
    """A Debian archive on this machine: unsigned but for the signature that `sign` leaves out."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.archive = UnsignedArchive(mirror=url, suite="test")

    def add(self, package: Package, data: bytes, *, listed: bool = True) -> None:
        """Put a package into the pool, and into the index when it is `listed`."""
        path = self.root / package.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        if listed:
            index = self.root / "dists/test/main/binary-amd64/Packages.xz"
            index.parent.mkdir(parents=True, exist_ok=True)
            text = lzma.decompress(index.read_bytes()) if index.exists() else b""
            text += (
                f"Package: {package.name}\nVersion: {package.version}\nArchitecture: amd64\nFilename: {package.path}\n"
                f"Size: {package.size}\nSHA256: {package.sha256}\nDescription: x\n more: text\n\n"
            ).encode()
            index.write_bytes(lzma.compress(text))
            digest = hashlib.sha256(index.read_bytes()).hexdigest()
            (self.root / "dists/test/InRelease").write_text(
                f"Suite: stable\nCodename: test\nDate: Sat, 12 Sep 2026 07:55:41 UTC\nSHA256:\n {digest} 1 "
                "main/binary-amd64/Packages.xz\n"
            )


class UnsignedArchive(DebianArchive):
    """An archive whose release file is taken as it is: the signature has a test of its own."""

    def _signed(self) -> str:
        return b"".join(self.fetch(f"dists/{self.suite}/InRelease")).decode()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """Serve a folder as a mirror."""
    root = tmp_path / "mirror"
    root.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Mirror(root, f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a lock file of the test's own."""
    path = tmp_path / "lock.json"
    monkeypatch.setattr(debs, "read_lock", lambda: read_lock(path))
    return path


def fetch(mirror: Mirror, cache: Path, *, locked: bool = False) -> tuple[Deb, list[str]]:
    """Fetch the package `tool`; return it and the warnings."""
    warnings: list[str] = []
    progress = Progress(sink=lambda event: warnings.append(event.message) if isinstance(event, WarningEvent) else None)
    return fetch_debs(["tool"], archive=mirror.archive, cache=cache, progress=progress, locked=locked)["tool"], warnings


def test_a_pinned_package_is_downloaded_once(mirror: Mirror, lock: Path, tmp_path: Path) -> None:
    """The second time the mirror is not asked; a damaged copy in the cache is replaced."""
    data = make_deb({"usr/bin/tool": b"program"})
    mirror.add(package_of(data), data)
    write_lock({"tool": package_of(data)}, mirror.archive, lock)
    deb, warnings = fetch(mirror, tmp_path / "cache")
    assert deb.locked
    assert not warnings
    assert deb.read("usr/bin/tool") == b"program"
    deb.file.write_bytes(b"damaged")
    assert fetch(mirror, tmp_path / "cache")[0].file.read_bytes() == data
    (mirror.root / package_of(data).path).unlink()
    assert fetch(mirror, tmp_path / "cache", locked=True)[0].file == deb.file


def test_a_version_that_is_gone_is_replaced_by_the_newest_and_the_user_is_told(
    mirror: Mirror, lock: Path, tmp_path: Path
) -> None:
    """Without the lock the build goes on; with it, it ends with what to do."""
    old, new = make_deb({"f": b"old"}), make_deb({"f": b"new"})
    write_lock({"tool": package_of(old)}, mirror.archive, lock)
    mirror.add(package_of(new, "2.0"), new)
    deb, warnings = fetch(mirror, tmp_path / "cache")
    assert (deb.locked, deb.package.version, deb.read("f")) == (False, "2.0", b"new")
    assert warnings == ["tool 1.0 is not on the mirror any more: using tool 2.0"]
    with pytest.raises(UnavailableError, match=r"tool 1\.0 is not on the mirror any more") as caught:
        fetch(mirror, tmp_path / "cache", locked=True)
    assert caught.value.code == "PACKAGE_GONE"


@pytest.mark.parametrize(
    "change", [lambda data: data[:-10], lambda data: data[:-1] + b"!", lambda data: data + b"more"]
)
def test_an_altered_package_is_refused_and_leaves_nothing(
    mirror: Mirror, lock: Path, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    """Cut, changed or longer: the cache stays empty."""
    data = make_deb({"f": b"content"})
    write_lock({"tool": package_of(data)}, mirror.archive, lock)
    mirror.add(package_of(data), change(data))
    with pytest.raises(DataError, match="is not the pinned package"):
        fetch(mirror, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_index_that_is_not_what_the_release_file_says_is_refused(mirror: Mirror) -> None:
    """Otherwise anybody on the way could choose our packages."""
    data = make_deb({})
    mirror.add(package_of(data), data)
    (mirror.root / "dists/test/main/binary-amd64/Packages.xz").write_bytes(lzma.compress(b"Package: tool\n"))
    with pytest.raises(DataError, match="not what the release file says"):
        mirror.archive.newest("tool")


def test_an_unsigned_release_file_is_refused(mirror: Mirror) -> None:
    """The real archive class asks gpgv."""
    data = make_deb({})
    mirror.add(package_of(data), data)
    with pytest.raises(Exception, match="gpgv failed"):
        DebianArchive(mirror=mirror.archive.mirror, suite="test").newest("tool")


def test_a_missing_keyring_is_named(mirror: Mirror, tmp_path: Path) -> None:
    """On Ubuntu Debian's keys are a package to install."""
    with pytest.raises(UnavailableError, match="signatures of Debian cannot be checked") as caught:
        DebianArchive(mirror=mirror.archive.mirror, keyring=tmp_path / "none").newest("tool")
    assert "debian-archive-keyring" in (caught.value.hint or "")


def test_a_mirror_that_cannot_be_reached_is_named(lock: Path, tmp_path: Path) -> None:
    """The message holds the address, the hint another mirror."""
    archive = DebianArchive(mirror="http://127.0.0.1:9")
    write_lock({"tool": package_of(b"")}, archive, lock)
    with pytest.raises(UnavailableError, match=r"cannot download http://127\.0\.0\.1:9/pool/tool"):
        fetch_debs(["tool"], archive=archive, cache=tmp_path, progress=Progress())


@pytest.mark.parametrize("suffix", [".xz", ".zst", ""])
def test_files_are_read_out_of_packages(tmp_path: Path, suffix: str) -> None:
    """However the tar inside is compressed; symlinks by their targets."""
    path = tmp_path / "x.deb"
    path.write_bytes(make_deb({"usr/lib/a.so.1": b"library", "usr/lib/a.so": "a.so.1", "etc/c": b""}, suffix))
    deb = Deb(package_of(b""), path, True)
    assert list(deb.members(lambda name: name.startswith("usr/"))) == [
        ("usr/lib/a.so.1", b"library"),
        ("usr/lib/a.so", "a.so.1"),
    ]
    with pytest.raises(DataError, match=r"tool 1\.0 has no usr/bin/none"):
        deb.read("usr/bin/none")


@pytest.mark.parametrize("data", [b"", b"!<arch>\n", b"MZ", make_deb({"a": b"x" * 9000})[:300]])
def test_a_damaged_package_is_refused(tmp_path: Path, data: bytes) -> None:
    """Empty, without files, no archive at all, or cut."""
    path = tmp_path / "x.deb"
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        list(Deb(package_of(b""), path, True).members(lambda name: True))


def test_the_kernel_is_what_the_meta_package_depends_on(mirror: Mirror) -> None:
    """The package's name changes with each kernel."""
    mirror.archive._index = parse_index(
        "Package: linux-image-amd64\nDepends: linux-image-6.12.9+deb13-amd64 (= 6.12.9-1)\n\n"
        "Package: linux-image-6.12.9+deb13-amd64\nVersion: 6.12.9-1\nArchitecture: amd64\nFilename: p\nSize: "
        "1\nSHA256: 00\n"
    )
    assert newest("linux-image-amd64", mirror.archive).name == "linux-image-6.12.9+deb13-amd64"
    with pytest.raises(NotFoundError, match="no package nonsense"):
        newest("nonsense", mirror.archive)


def test_the_lock_file_pins_everything_the_recipe_names() -> None:
    """And nothing else; each by a complete digest."""
    pinned = read_lock()
    assert set(pinned) == set(packages.ALL)
    assert all(
        len(package.sha256) == 64 and package.size > 0 and package.path.startswith("pool/")
        for package in pinned.values()
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"packages": {"a": {"name": 1}}}', '{"packages": {"a": []}}'])
def test_a_damaged_lock_file_is_named(tmp_path: Path, text: str) -> None:
    """No traceback."""
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(DataError, match="not a package lock file"):
        read_lock(path)


def test_a_real_package_reads_as_dpkg_reads_it(tmp_path: Path, base_tools: Path) -> None:
    """The pinned busybox, compared with what dpkg-deb unpacks."""
    package = read_lock()["busybox-static"]
    deb = Deb(package, base_tools / package.path.rpartition("/")[2], True)
    subprocess.run(["dpkg-deb", "-x", deb.file, tmp_path], check=True)
    ours = {path: content for path, content in deb.members(lambda name: True) if isinstance(content, bytes)}
    theirs = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert ours == theirs


@pytest.fixture
def base_tools() -> Path:
    """Return the folder of downloaded packages, with busybox in it."""
    from support.images.kit import CACHE

    fetch_debs(["busybox-static"], archive=DebianArchive(), cache=CACHE / "debs", progress=Progress())
    return CACHE / "debs"
