"""`shed setup`: what it says of packages that are missing, and that it makes nothing twice."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from shed.cli import setup
from shed.cli.app import SHED
from shed.cli.options import Options
from shed.errors import UnavailableError


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made; programs that only root's PATH has are found."""
    there = {"nft": "/usr/sbin/nft", "gpgv": "/usr/bin/gpgv", "newuidmap": "/usr/bin/newuidmap"}

    def which(program: str, *, path: str) -> str | None:
        assert path.endswith(":/usr/sbin:/sbin")
        return there.get(program)

    monkeypatch.setattr(shutil, "which", which)
    monkeypatch.setattr(os.path, "exists", lambda path: path != setup._KEYRING)
    with pytest.raises(UnavailableError) as caught:
        SHED(["setup"], Options())
    assert caught.value.code == "TOOL_MISSING"
    wanted = "qemu-system-x86 mmdebstrap debian-archive-keyring"
    assert caught.value.hint == f"sudo apt-get install --no-install-recommends {wanted}"


def test_what_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the image in the store it says at once what comes next."""
    monkeypatch.setenv("SHED_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(setup, "_check_packages", lambda: None)
    monkeypatch.setattr("shed.images.references.find_image", lambda store, name: name)
    monkeypatch.setattr("shed.cli.image_build.make_image", lambda *_: pytest.fail("it was made"))
    assert SHED(["setup", "--image", "full", "--no-doctor", "--json"], Options()) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "full"
    assert SHED(["setup", "--no-doctor"], Options()) == 0
    assert capsys.readouterr().out == "ready: shed create dev\n"
