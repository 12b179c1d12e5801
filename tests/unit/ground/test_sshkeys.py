"""SSH keys: their lines, and pairs that are made when they are needed."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shed.errors import DataError
from shed.sshkeys import PublicKey, make_pair, read_public


def test_made_once_by_many_processes(tmp_path: Path) -> None:
    """All find the same pair, whole, and ssh-keygen agrees on its fingerprint."""
    path = tmp_path / "id_ed25519"
    code = (
        "import sys, pathlib; from shed.sshkeys import *; p = pathlib.Path(sys.argv[1]); make_pair(p, 'c'); "
        "print(read_public(p))"
    )
    words = [sys.executable, "-c", code, str(path)]
    with ThreadPoolExecutor(6) as pool:
        lines = {
            done.stdout
            for done in pool.map(lambda _: subprocess.run(words, capture_output=True, text=True, check=True), range(6))
        }
    assert lines == {f"{read_public(path)}\n"}
    assert path.stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout.split()
    assert shown[1:3] == [read_public(path).fingerprint, "c"]


def test_the_public_half_is_made_again(tmp_path: Path) -> None:
    """From the private one; a public one whose private one is gone is not used."""
    path = tmp_path / "key"
    make_pair(path, "one")
    first = read_public(path)
    path.with_name("key.pub").unlink()
    make_pair(path, "two")
    assert str(read_public(path)) == str(first)
    path.unlink()
    make_pair(path, "three")
    assert str(read_public(path)) != str(first)
    path.with_name("key.pub").write_text("nonsense")
    with pytest.raises(DataError, match="does not hold a key"):
        read_public(path)


@pytest.mark.parametrize(
    "text", ["", "not a key", "-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n"]
)
def test_a_private_key_that_is_none(tmp_path: Path, text: str) -> None:
    """Is said by name, and kept: it may be mended."""
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(DataError, match=str(path)):
        make_pair(path, "c")
    assert path.read_text() == text


def test_a_comment_is_printable(tmp_path: Path) -> None:
    """Whatever its owner wrote into it."""
    make_pair(tmp_path / "key", "c")
    key = read_public(tmp_path / "key")
    assert PublicKey.parse(f"{key} a\x1b[2Jb\u202e c\nd").comment == "a[2Jb cd"
    assert len(PublicKey.parse(f"{key} {'x' * 5000}").comment) == 100
