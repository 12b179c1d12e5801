"""The quick start, executed command for command: what a newcomer types works, and says what the page says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.ports import free_port
from support.vms.machine import Machine
from support.vms.templates import EITHER

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
PAGE = Path(__file__).parents[2] / "docs/quick-start.md"


def test_the_quick_start_works(base_store: LayoutStore, tmp_path: Path) -> None:
    """From the first create to the delete, ssh and a copy included; the folder of the host stays."""
    copy_store(base_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way=EITHER, settings=f"ssh_port: {free_port()}\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    wrappers = {
        "shed": f"{sys.executable} -m shed.cli.main",
        "ssh": f"{shutil.which('ssh')} -F {tmp_path}/.ssh/config",  # it takes its user's home, and not $HOME
    }
    for name, command in wrappers.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {**machine.environment, "PATH": f"{programs}:{machine.environment['PATH']}"}
    blocks = re.findall(r'^```sh title="quick start"\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE)
    printed = {}
    try:
        for line in "".join(blocks).splitlines():
            done = subprocess.run(
                ["sh", "-c", line],
                check=False,
                capture_output=True,
                text=True,
                env=environment,
                stdin=subprocess.DEVNULL,
                cwd=tmp_path,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}{machine.consoles()}"
            printed[line] = done.stdout
    finally:
        machine.end()
    assert printed["cat ~/hello/note"] == "written in dev\n"
    assert printed["shed exec dev -- ls /etc/my-change"] == "/etc/my-change\n"
    assert printed["ssh shed-dev uname -n"] == "dev\n"
    assert (tmp_path / "hello/debian_version").read_text()
    assert not list((machine.data / "uppers").glob("*"))
