"""What each check of the doctor says of a host that is well, and of one that is not; on real stores and real
folders.
"""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shed.backends.qemu import diagnostics
from shed.checks import Result, Status
from shed.config.paths import Paths
from shed.errors import UsageError
from shed.images.bootkit.build import save_kit
from shed.images.mint import MintResult
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import hex_of, short
from shed.oci.manifest import Manifest
from shed.oci.store import LayoutStore
from shed.server.doctor import examine as examination
from shed.server.doctor import machine, storage
from shed.server.doctor.examine import as_json, as_text, examine
from shed.server.doctor.host import Check, Host
from shed.server.main import main
from shed.sheds import folders, metadata
from support.images.minted import mint_small, small_kit
from support.servers.doctor import found


@pytest.fixture
def minted(host: Host, tmp_path: Path) -> MintResult:
    """An image called base in the host's store."""
    return mint_small(host.store, tmp_path)


def test_every_row_of_the_report(host: Host) -> None:
    """Counts, then name, status and detail in columns; the same for programs."""
    rows = [Result("a", Status.PASS, "fine"), Result("b", Status.FAIL, "bad\n  \x1b[2J", "mend it")]
    assert (
        as_text(rows)
        == f"shed-server doctor: 1 PASS, 0 WARN, 1 FAIL\n{'a':<24} PASS fine\n{'b':<24} FAIL bad \\x1b[2J; mend it\n"
    )
    assert json.loads(as_json(rows)) == {
        "summary": {"PASS": 1, "WARN": 0, "FAIL": 1},
        "checks": [
            {"name": "a", "status": "PASS", "detail": "fine", "hint": ""},
            {"name": "b", "status": "FAIL", "detail": "bad\n  \x1b[2J", "hint": "mend it"},
        ],
    }


def test_long_rows_go_on_below_where_they_begin() -> None:
    """Words stay whole, so that what is to be typed can be copied."""
    hint = (
        "sudo usermod -aG kvm $USER, then log in again-and-again /a/path/that/is/longer/than/what/is/left/of/the/line/"
    )
    report = as_text([Result("acceleration", Status.WARN, "guests are emulated, several times slower", hint)], 80)
    row = report.splitlines()[1:]
    assert row[0] == f"{'acceleration':<24} WARN guests are emulated, several times slower; sudo"
    assert all(line.startswith(" " * 30) and (len(line) <= 80 or "/path/" in line) for line in row[1:])
    assert " ".join(line.strip() for line in row).endswith(hint)


def test_a_check_that_breaks_off_is_a_row_and_the_others_go_on(host: Host) -> None:
    """Whatever it raises, and after rows of its own."""

    def bug(host: Host) -> Iterator[Result]:
        yield Result("first", Status.PASS, "fine")
        raise KeyError("oops")

    def refused(host: Host) -> Iterator[Result]:
        yield from (Result(name, Status.PASS, "") for name in map(str, (host.paths.data / "none").iterdir()))

    def told(host: Host) -> Iterator[Result]:
        raise UsageError("told", hint="do this")

    rows = list(examine(host, [("bug", bug), ("refused", refused), ("told", told), ("space", machine.disk_space)]))
    assert [row.status for row in rows[:4]] == [Status.PASS, Status.FAIL, Status.FAIL, Status.FAIL]
    assert (rows[1].name, rows[1].detail) == ("bug", "the check itself failed: KeyError: 'oops'")
    assert str(host.paths.data / "none") in rows[2].detail
    assert (rows[3].detail, rows[3].hint) == ("told", "do this")
    assert rows[4].name == "disk space"


def test_checks_run_at_once_and_report_in_order(host: Host) -> None:
    """Each waits for the next one here, so one after the other would wait for ever."""
    names = ("first", "second", "third")
    begun = {name: threading.Event() for name in names}

    def waits(name: str, for_: str) -> Check:
        def check(_: Host) -> Iterator[Result]:
            begun[name].set()
            assert begun[for_].wait(60)
            yield Result(name, Status.PASS, "")

        return check

    checks = [(name, waits(name, other)) for name, other in zip(names, (*names[1:], names[-1]), strict=True)]
    assert [(row.name, row.status) for row in examine(host, checks)] == [(name, Status.PASS) for name in names]


def test_a_check_that_hangs_is_a_row_and_the_others_go_on(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has found so far; those that read much have more time."""
    monkeypatch.setattr(examination, "SECONDS", 0.05)
    go_on = threading.Event()

    def hangs(_: Host) -> Iterator[Result]:
        yield Result("first", Status.PASS, "fine")
        go_on.wait()

    def reads(_: Host) -> Iterator[Result]:
        go_on.wait(0.1)
        yield Result("images", Status.PASS, "fine")

    rows = list(examine(host, [("disk", hangs), ("images", reads), ("space", machine.disk_space)]))
    go_on.set()
    assert [row.name for row in rows] == ["first", "disk", "images", "disk space"]
    assert rows[1] == Result("disk", Status.FAIL, "it was not done within 0.05 s", "look at the disks, and try again")
    assert rows[2].status is Status.PASS
    assert set(examination.LONG) <= {name for name, _ in examination.CHECKS}


def test_qemu(host: Host, tmp_path: Path) -> None:
    """There with its version, missing, or not able to start."""
    assert "QEMU emulator version" in found(host, machine.vmm).detail
    missing = found(Host(host.paths, program="qemu-none"), machine.vmm)
    assert (missing.status, missing.detail) == (Status.FAIL, "qemu-none is not installed")
    assert "apt-get install" in missing.hint
    broken = tmp_path / "qemu"
    broken.write_text("#!/bin/sh\necho no library >&2\nexit 127\n")
    broken.chmod(0o755)
    failed = found(Host(host.paths, program=str(broken)), machine.vmm)
    assert failed.status is Status.FAIL
    assert "no library" in failed.detail


def test_a_guest_is_really_started(host: Host, kit_store: LayoutStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The boot kit's kernel gets as far as it can; emulation is a warning with its reason."""
    shutil.rmtree(host.paths.images, ignore_errors=True)
    host.paths.images.symlink_to(kit_store.root)
    monkeypatch.setattr(diagnostics, "GUEST_SECONDS", 200)
    assert found(host, machine.acceleration, "acceleration") == Result(
        "acceleration", Status.WARN, "tcg: asked for with SHED_ACCEL=tcg"
    )
    guest = found(host, machine.acceleration, "guest")
    assert guest.status is Status.PASS
    assert "a guest started with tcg in" in guest.detail
    assert found(host, storage.boot_kit).status is Status.PASS
    monkeypatch.setenv("SHED_ACCEL", "warp")
    assert found(host, machine.acceleration).detail == "SHED_ACCEL is 'warp'"


def test_a_kernel_that_does_not_start(host: Host, minted: MintResult) -> None:
    """It is of an image, as there is no boot kit, and it is no kernel at all."""
    guest = found(host, machine.acceleration, "guest")
    assert guest.status is Status.FAIL
    assert "does not start with tcg" in guest.detail


def test_no_kernel_to_try(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said; nothing is guessed."""
    assert found(host, machine.acceleration, "guest").status is Status.WARN
    monkeypatch.delenv("SHED_ACCEL")
    monkeypatch.setattr("shed.backends.qemu.accel._trouble", lambda device: "")
    assert "no guest can be tried" in found(host, machine.acceleration).detail


@pytest.mark.root
@pytest.mark.parametrize(("size", "status"), [("500M", Status.FAIL), ("3G", Status.WARN), ("8G", Status.PASS)])
def test_disk_space(host: Host, tmp_path: Path, size: str, status: Status) -> None:
    """On file systems of that size; a data folder that is not there yet is where its parent is."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        for data in (place, place / "not/yet"):
            row = found(Host(Paths(data, host.paths.run)), machine.disk_space)
            assert row.status is status
            assert str(place) in row.detail
            assert bool(row.hint) == (status is not Status.PASS)
    finally:
        subprocess.run(["umount", place], check=True)


def test_data_folders(host: Host, tmp_path: Path) -> None:
    """Good ones; one that all may write to; a file in place of one; none yet."""
    assert found(host, machine.data_folders).status is Status.PASS
    assert found(Host(Paths(tmp_path / "new/one", tmp_path / "run")), machine.data_folders).status is Status.PASS
    host.paths.uppers.chmod(0o777)
    host.paths.logs.rmdir()
    host.paths.logs.touch()
    row = found(host, machine.data_folders)
    assert row.status is Status.FAIL
    assert f"{host.paths.uppers} can be written to by everybody" in row.detail
    assert f"{host.paths.logs} is not a folder" in row.detail


@pytest.mark.root
def test_data_folders_of_somebody_else(host: Host) -> None:
    """Both users are named, also one without a name."""
    os.chown(host.paths.uppers, 1, 1)
    os.chown(host.paths.logs, 54321, 1)
    os.chown(host.paths.spares, 1, 1)
    row = found(host, machine.data_folders)
    assert f"{host.paths.spares} belongs to daemon" in row.detail
    assert f"{host.paths.uppers} belongs to daemon, and not to root" in row.detail
    assert f"{host.paths.logs} belongs to user 54321, and not to root" in row.detail


@pytest.mark.root
def test_templates_of_somebody_else(
    host: Host, minted: MintResult, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the way of the server's own, as is what is left of one; so none is made for a server of another
    user.
    """
    for name in ("vm-1", ".vm-2.gone", ".vm-3.new"):
        (host.paths.templates / name).mkdir()
    for name in ("vm-1", ".vm-2.gone"):
        os.chown(host.paths.templates / name, 54321, 1)
    rows = [row for row in examine(host, [("check", storage.templates)]) if "user 54321" in row.detail]
    assert [(row.name, row.status) for row in rows] == [
        ("template .vm-2.gone", Status.WARN),
        ("template vm-1", Status.WARN),
    ]
    assert rows[0].hint == f"sudo rm -rf {host.paths.templates / '.vm-2.gone'}"
    os.chown(host.paths.templates, 54321, 1)
    monkeypatch.setenv("SHED_DATA_DIR", str(host.paths.data))
    assert main(["warm"]) == 1
    assert f"{host.paths.templates} belongs to user 54321" in capsys.readouterr().err


def test_boot_kit(host: Host) -> None:
    """None is a warning; one that lost a blob, was altered, or whose runtime no kernel reads is a failure."""
    assert found(host, storage.boot_kit).status is Status.WARN
    store = host.store
    kit = small_kit(store)
    save_kit(store, kit)
    row = found(host, storage.boot_kit)
    assert row.status is Status.FAIL
    assert "image" in row.detail  # `runtime` is no EROFS
    path = store.blob_path(kit.initrd)
    path.chmod(0o644)
    path.write_bytes(b"intird")
    assert "digest mismatch" in found(host, storage.boot_kit).detail
    path.unlink()
    assert "the initrd of the boot kit" in found(host, storage.boot_kit).detail
    (store.root / "kit.json").write_text("{")
    assert "kit.json is damaged" in found(host, storage.boot_kit).detail


def test_no_images(host: Host) -> None:
    """A warning that says how to get one."""
    row = found(host, storage.images)
    assert (row.status, row.detail) == (Status.WARN, "there are none yet")
    assert "shed-server pull-images" in row.hint


def with_runtime(host: Host, minted: MintResult) -> MintResult:
    """Give the image a runtime that is an EROFS image: its own root."""
    store = host.store
    manifest = store.read_manifest(minted.manifest_digest)
    runtime = {"io.shed.runtime.erofs.digest": minted.root_digest, "io.shed.runtime.erofs.size": str(minted.root_size)}
    publish(store, manifest, "base", runtime)
    return minted


def publish(store: LayoutStore, manifest: Manifest, name: str, changes: dict[str, str]) -> str:
    """Publish the manifest with other annotations (empty: without it) and return its digest."""
    annotations = {key: value for key, value in (manifest.annotations | changes).items() if value}
    data = Manifest(manifest.config, manifest.layers, annotations).encode()
    digest = store.put_bytes(data)
    store.publish(Descriptor(media.MANIFEST, digest, len(data)), name)
    return digest


def test_a_sound_image_and_others_that_are_not(host: Host, minted: MintResult) -> None:
    """One row each, by name or digest; the refusal of an image without a root is word for word the one at create."""
    store = host.store
    with_runtime(host, minted)
    assert found(host, storage.images, "image base").status is Status.PASS
    manifest = store.read_manifest(minted.manifest_digest)
    old = short(publish(store, manifest, "old", {"io.shed.rootfs.erofs.digest": ""}))
    assert found(host, storage.images, "image old") == Result(
        "image old",
        Status.FAIL,
        f"image manifest {old} lacks io.shed.rootfs.erofs.digest annotation (built with pre-v0.5.2 tooling). "
        f"Re-pull against current images: shed image rm {old} && shed-server pull-images.",
    )
    store.untag("old")
    assert found(host, storage.images, f"image {old.removeprefix('sha256:')}").status is Status.FAIL
    (store.tags / "torn.json").write_text("{")
    assert str(store.tags / "torn.json") in found(host, storage.images, "image torn").detail
    (store.root / "index.json").write_text("{")
    assert found(host, storage.images, "images").status is Status.FAIL


@pytest.mark.parametrize("damage", ["rotten", "missing", "folder"])
def test_a_root_that_changed(host: Host, minted: MintResult, damage: str) -> None:
    """Every byte is read again, also of a blob that was found good before and looks untouched."""
    with_runtime(host, minted)
    path = host.store.blob_path(minted.root_digest)
    assert found(host, storage.images, "image base").status is Status.PASS
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    if damage != "rotten":
        path.unlink()
    if damage == "folder":
        path.mkdir()
    row = found(host, storage.images, "image base")
    assert row.status is Status.FAIL
    assert "the check itself failed" not in row.detail


def test_an_image_that_a_kernel_cannot_read(host: Host, minted: MintResult) -> None:
    """Its digest is right and it is complete; the checker names the rule's breach."""
    store = host.store
    with_runtime(host, minted)
    junk = store.put_bytes(b"no file system" * 1000)
    publish(store, store.read_manifest(minted.manifest_digest), "junk", {"io.shed.rootfs.erofs.digest": junk})
    row = found(host, storage.images, "image junk")
    assert row.status is Status.FAIL
    assert "magic" in row.detail or "EROFS" in row.detail


def test_sheds(host: Host, minted: MintResult) -> None:
    """Sound, unfinished, torn, of another schema, without its writable layer or its image, with errors in it."""
    record = metadata.Record("good", metadata.now(), "base", minted.manifest_digest, "qemu", 1, 512, 1 << 30)
    for name in ("good", "torn", "old", "bare", "homeless", "new", "hurt"):
        place = folders.Folders(host.paths, name)
        place.instance.mkdir()
        digest = "sha256:" + "0" * 64 if name == "homeless" else minted.manifest_digest
        metadata.save(place.instance, replace(record, name=name, lower_digest=digest))
        if name != "bare":
            place.upper.parent.mkdir()
            place.upper.write_bytes(bytes(1082) + b"\x03" if name == "hurt" else b"")
    (host.paths.instances / "torn/metadata.json").write_text("{")
    (host.paths.instances / "old/metadata.json").write_text('{"schema_version": 2}')
    metadata.save_marker(host.paths.instances / "new", metadata.Marker("new", "base", "x", metadata.now()))
    (host.paths.instances / "new/metadata.json").unlink()
    rows = {row.name: row for row in examine(host, [("sheds", storage.sheds)])}
    assert {name for name, row in rows.items() if row.status is Status.FAIL} == {
        "shed torn",
        "shed old",
        "shed bare",
        "shed homeless",
    }
    assert str(host.paths.instances / "torn/metadata.json") in rows["shed torn"].detail
    assert "shed delete --force old" in rows["shed old"].hint
    assert "writable layer" in rows["shed bare"].detail
    assert "no image is called" in rows["shed homeless"].detail
    assert (rows["shed hurt"].status, "e2fsck" in rows["shed hurt"].hint) == (Status.WARN, True)
    assert rows["sheds"].detail == "7 looked at"


def test_what_earlier_versions_left(host: Host, minted: MintResult) -> None:
    """The commands that are told remove it, and nothing else."""
    store = host.store
    assert found(host, storage.leftovers, "legacy cache").status is Status.PASS
    assert found(host, storage.leftovers, "legacy blobs").status is Status.PASS
    (store.root / "cache/sha256").mkdir(parents=True)
    (store.root / "cache/sha256" / f"{'0' * 64}.erofs").touch()
    bundle = store.blobs / ("1" * 64)
    bundle.mkdir()
    (bundle / "manifest.json").touch()
    before = set(store.blob_digests())
    for name, status in (("legacy cache", Status.WARN), ("legacy blobs", Status.FAIL)):
        row = found(host, storage.leftovers, name)
        assert row.status is status
        subprocess.run(row.hint.split(": ", 1)[1], shell=True, check=True)
        assert found(host, storage.leftovers, name).status is Status.PASS
    assert before - set(store.blob_digests()) == {f"sha256:{bundle.name}"}
    assert hex_of(minted.root_digest) in {path.name for path in store.blobs.iterdir()}


def test_folders_that_others_can_look_into_are_told(host: Host) -> None:
    """They could hold the locks there; a server closes them when it starts."""
    folders.prepare(host.paths)
    assert found(host, machine.data_folders).status is Status.PASS
    host.paths.images.chmod(0o755)
    row = found(host, machine.data_folders)
    assert (row.status, str(host.paths.images) in row.detail) == (Status.WARN, True)
    folders.prepare(host.paths)
    assert found(host, machine.data_folders).status is Status.PASS
