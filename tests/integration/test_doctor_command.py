"""`shed-server doctor` as its users run it: on a host that can make sheds, and on one that cannot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shed.images.bootkit.kit import load_kit
from shed.images.references import find_image
from shed.oci.digest import short
from shed.oci.store import LayoutStore
from support.images.kit import copy_store

Environment = dict[str, str]


@pytest.fixture
def environment(tmp_path: Path, small_store: LayoutStore) -> Environment:
    """A host with the real boot kit and two real images, and with nothing else."""
    copy_store(small_store, tmp_path / "data/images")
    for folder in ("data", "data/images"):
        (tmp_path / folder).chmod(0o700)
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "SHED_ACCEL": "tcg"}
    return {**os.environ, **home, "SHED_DATA_DIR": str(tmp_path / "data"), "SHED_RUNTIME_DIR": str(tmp_path / "run")}


OF_THE_HOST = {"control groups", "memory", "pressure"}
"""Rows that differ from one machine, and one moment, to the next."""


def doctor(environment: Environment, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    command = [sys.executable, "-m", "shed.server.main", "doctor", *words]
    return subprocess.run(
        command, env=environment, cwd=environment["HOME"], capture_output=True, text=True, check=False, timeout=280
    )


@pytest.mark.slow
def test_a_host_that_is_well_and_then_is_not(environment: Environment) -> None:
    """Exit code 0 and no FAIL; then a root file system rots, and the row of that image alone says so; no server is
    started.
    """
    done = doctor(environment, "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0, done.stdout
    warnings = {name for name, row in rows.items() if row["status"] == "WARN"}
    assert warnings - OF_THE_HOST == {"acceleration", "service", "server"}
    assert {"guest", "boot kit", "image busybox", "image shell-less"} <= rows.keys()
    store = LayoutStore(Path(environment["SHED_DATA_DIR"]) / "images")
    digest = find_image(store, "busybox").digest
    root = store.blob_path(store.read_manifest(digest).annotations["io.shed.rootfs.erofs.digest"])
    data = root.read_bytes()
    root.unlink()  # a hardlink to the store of all tests
    root.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = doctor(environment)
    head, *lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    counts = re.fullmatch(r"shed-server doctor: (\d+) PASS, (\d+) WARN, 1 FAIL", head)
    assert counts is not None, head
    assert int(counts[1]) + int(counts[2]) + 1 == len(rows)
    assert len(lines) == len(rows)
    (failed,) = [line for line in lines if line[25:29] == "FAIL"]
    assert failed.startswith(
        f"{'image busybox':<24} FAIL rootfs erofs blob of image manifest {short(digest)} is damaged: "
    )
    assert not Path(environment["SHED_RUNTIME_DIR"]).exists()
    assert load_kit(store)


def test_a_host_with_nothing(environment: Environment, tmp_path: Path) -> None:
    """No QEMU, no folder, a configuration that is wrong: rows, not a traceback."""
    (tmp_path / "bad.yaml").write_text("qemu: [\n")
    nowhere = str(tmp_path / "bad.yaml/none")
    environment |= {"PATH": "/nonexistent", "SHED_DATA_DIR": nowhere, "SHED_RUNTIME_DIR": nowhere}
    done = doctor(environment, "--config", str(tmp_path / "bad.yaml"))
    assert (done.returncode, done.stderr) == (1, "")
    failed = [line[:24].rstrip() for line in done.stdout.splitlines()[1:] if line[25:29] == "FAIL"]
    assert failed == ["vmm", "acceleration", "configuration", "data folders", "images", "egress log"]
