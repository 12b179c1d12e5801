"""Work folders: they go with their block, and those that a crash left go with the next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shed.images.workdir import work_folder


def test_a_folder_goes_with_its_block(tmp_path: Path) -> None:
    """With all that is in it; one beside it, in use, stays."""
    with work_folder(tmp_path / "new") as one:
        (one / "a").mkdir()
        (one / "a/file").touch()
        with work_folder(tmp_path / "new") as two:
            assert one != two
        assert (one / "a/file").exists()
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_crash_left_goes_at_once(tmp_path: Path) -> None:
    """However young it is."""
    crash = "import os, sys\nfrom pathlib import Path\nfrom shed.images.workdir import work_folder\n"
    crash += "with work_folder(Path(sys.argv[1])) as folder:\n    (folder / 'x').touch()\n    os._exit(1)"
    subprocess.run([sys.executable, "-c", crash, tmp_path], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with work_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
