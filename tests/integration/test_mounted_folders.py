"""Folders of the host that are in each other by what is mounted there, with real mounts in a namespace of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRY = """
import sys
from shed.errors import UsageError
from shed.sheds.mountspec import Mount, check_apart, checked
own, other = sys.argv[1:]
for what in (
    lambda: checked([f"{other}:/data:ro"], own),
    lambda: checked([f"{own}:/own", f"{other}:/data:ro"], None),
    lambda: check_apart("dev", [Mount(own, "/workspace"), Mount(other, "/data", "ro")]),
):
    try:
        what()
    except UsageError as error:
        print(error.code, "in each other" in error.message)
    else:
        print("apart")
"""


def tries(before: str, own: Path, other: Path) -> set[str]:
    """Return what is said of the folders `own` and `other` of one shed after the shell commands `before`."""
    words = ["unshare", "--map-root-user", "--mount", "sh", "-ec", f'{before}; shift; exec "$@"', "sh", str(own.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*words, sys.executable, "-c", TRY, str(own), str(other)]
    done = subprocess.run(command, cwd=own.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    return set(done.stdout.splitlines())


@pytest.mark.root
@pytest.mark.parametrize(
    ("before", "is_in"),
    [
        ("mount --bind 'the data' proj/data", True),
        ("mount --bind 'the data/sub' proj/data", True),
        ("mount --bind 'the data' proj/data; mount --bind proj proj/sub", True),
        ("mount --bind . proj/data", True),
        ("mount --bind 'the data' proj", True),
        ("mount --bind proj/sub 'the data'", True),
        ("mount --bind proj 'the data/sub'", True),
        ("mount --bind 'the data' beside", False),
        ("mount --bind beside proj/data", False),
        ("mount -t tmpfs none proj/data; mount -t tmpfs none 'the data'", False),
        ("true", False),
    ],
)
def test_folders_that_are_mounted_in_each_other(tmp_path: Path, before: str, is_in: bool) -> None:
    """A folder of the one that is also in the other is found wherever it is mounted, when one is named and at a start;
    what is mounted elsewhere, or belongs to neither, does no harm.
    """
    for name in ("proj/data", "proj/sub", "the data/sub", "beside"):
        (tmp_path / name).mkdir(parents=True)
    expected = {"INVALID_MOUNT True"} if is_in else {"apart"}
    assert tries(before, tmp_path / "proj", tmp_path / "the data") == expected
