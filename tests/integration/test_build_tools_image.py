"""The image of build tools: the same packages give the same image, a mirror that has moved on gives another, and it
says what is in it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shed.errors import DataError
from shed.images import build_tools_image
from shed.images.bootkit.debian_archive import DebianArchive
from shed.images.bootkit.debs import read_lock, write_lock
from shed.images.build_tools_image import LOCK_NAME, SUITE, pack_build_tools
from shed.images.engine import Engine
from shed.images.writers import DEVELOPMENT
from shed.oci.archive import open_archive
from shed.oci.selection import select_image
from shed.progress import Event, Progress, WarningEvent
from shed.run import run
from support.images.kit import CACHE
from support.tools.engine import RECIPE, environment

LOCK = RECIPE / LOCK_NAME


def labels(archive: Path) -> dict[str, str]:
    """Return the labels of the image in `archive`."""
    with open_archive(archive, scratch=archive.parent) as opened:
        found = json.loads(select_image(opened, None).config_bytes)["config"]["Labels"]
        assert isinstance(found, dict)
        return found


def test_the_same_packages_give_the_same_image(tmp_path: Path) -> None:
    """Two builds from one lock file are the same to the byte."""
    first, second = (
        pack_build_tools(tmp_path / name, lock=LOCK, cache=CACHE / "debs", progress=Progress())
        for name in ("first.tar", "second.tar")
    )
    assert first == second
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_it_says_which_packages_are_in_it(tmp_path: Path) -> None:
    """Its labels name the packages and the version of erofs-utils."""
    pack_build_tools(tmp_path / "image.tar", lock=LOCK, cache=CACHE / "debs", progress=Progress())
    found = labels(tmp_path / "image.tar")
    packages = dict(word.split("=", 1) for word in found["io.shed.build-tools.packages"].split())
    assert packages["erofs-utils"] == found["org.opencontainers.image.version"]
    assert {"liblz4-1", "libzstd1", "libc6", "e2fsprogs"} <= packages.keys()


def test_a_mirror_that_has_moved_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One package that is gone: all are the suite's newest, with a warning, and what is in it is recorded.

    The tests' mirror may be one that stands still, with a release file of sid that is too old.
    """
    monkeypatch.setenv("SHED_DEBIAN_CHECK_VALID_UNTIL", "no")
    gone = read_lock(LOCK)
    gone["liblz4-1"] = replace(
        gone["liblz4-1"], version="0.1", path="pool/main/l/lz4/liblz4-1_0.1_amd64.deb", sha256="0" * 64
    )
    lock = tmp_path / LOCK_NAME
    write_lock(gone, DebianArchive(suite=SUITE), lock)
    events: list[Event] = []
    pack_build_tools(tmp_path / "image.tar", lock=lock, cache=CACHE / "debs", progress=Progress(events.append))
    (warning,) = [event.message for event in events if isinstance(event, WarningEvent)]
    assert "liblz4-1 0.1 is not on the mirror any more" in warning
    assert "taking all packages as sid has them now" in warning
    assert "liblz4-1=0.1 " not in labels(tmp_path / "image.tar")["io.shed.build-tools.packages"]


def test_tools_that_are_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused by version, and nothing is left."""
    monkeypatch.setattr(build_tools_image, "_OLDEST", (99, 0))
    with pytest.raises(DataError, match=r"erofs-utils 1\.\S+ is too old"):
        pack_build_tools(tmp_path / "image.tar", lock=LOCK, cache=CACHE / "debs", progress=Progress())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
@pytest.mark.slow
def test_its_tools_run_without_anything_else(build_tools: Engine) -> None:
    """Loading it used each tool once; here they say who they are."""
    for words, said in [
        (["mkfs.erofs", "--version"], b"1.9."),
        (["fsck.erofs", "--version"], b"1.9."),
        (["mkfs.ext4", "-V"], b"mke2fs"),
    ]:
        done = build_tools.run(DEVELOPMENT, words)
        assert said in done.stdout + done.stderr
    entrypoint = run(
        [build_tools.program, "image", "inspect", "--format", "{{.Config.Entrypoint}}", DEVELOPMENT], env=environment()
    ).stdout
    assert entrypoint == b"[mkfs.erofs]\n"


@pytest.mark.root
@pytest.mark.slow
def test_a_host_that_gives_few_open_files(build_tools: Engine) -> None:
    """Where root may not raise its limits, a container asks for no more than there is; before, podman's 1,048,576 were
    refused.
    """
    script = (
        "from shed.images.engine import Engine; import sys;"
        f"sys.stdout.buffer.write(Engine({build_tools.program!r}, rootless=False).run({DEVELOPMENT!r}, ['mkfs.erofs', "
        "'--version']).stdout)"
    )
    poor = ["setpriv", "--bounding-set=-sys_resource", "prlimit", "--nofile=512:512", "--nproc=900:900"]
    done = run([*poor, sys.executable, "-c", script], env=environment())
    assert b"1.9." in done.stdout
