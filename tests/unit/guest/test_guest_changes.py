"""What has changed above an image: a real overlay of this host's kernel, looked at from below."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import shed

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts")]
SCRIPT = r"""
set -e
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir -p root/etc/deep root/usr/lib root/gone/in root/moved/in root/same root/swapped root/again upper work all
for file in etc/passwd etc/deep/one usr/lib/a usr/lib/b gone/in/x moved/in/y same/z swapped/f again/old again/kept file
do
    echo root >root/$file
done
mount -t overlay overlay -o lowerdir=root,upperdir=upper,workdir=work,redirect_dir=on all
cd all
echo more >>etc/passwd
mkdir -p new/folder; touch new/folder/in
rm usr/lib/a
rm -r gone
mv moved elsewhere
chmod 700 same
rm -r swapped; echo now a file >swapped
rm file; mkdir file; touch file/in
rm -r again; mkdir again; echo new >again/kept
touch "$(printf 'odd\377name')"
ln -s /etc/passwd link
cat etc/deep/one >/dev/null
cd ..
"$2" -c 'from shed.guest.changes import compare
compare("upper", "root", lambda kind, path: print(kind + ascii(path)))'
"""


def test_each_kind_of_change(tmp_path: Path) -> None:
    """By letters and paths, in order; a folder is not changed because something in it is."""
    command = ["unshare", "-m", "sh", "-c", SCRIPT, "sh", str(tmp_path), sys.executable]
    source = Path(shed.__file__).parents[1]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(source)}, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        r"A'/elsewhere'",
        r"M'/file'",
        r"D'/gone'",
        r"A'/link'",
        r"D'/moved'",
        r"A'/new'",
        r"A'/odd\udcffname'",
        r"M'/same'",
        r"M'/swapped'",
        r"M'/again/kept'",
        r"D'/again/old'",
        r"M'/etc/passwd'",
        r"D'/usr/lib/a'",
    ]
