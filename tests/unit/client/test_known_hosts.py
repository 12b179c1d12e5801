"""Pinning host keys: the file is OpenSSH's, and `ssh-keygen` reads what we write."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from shed.client.known_hosts import pin
from shed.errors import ConflictError, DataError


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three public keys, with their comments."""
    folder = tmp_path_factory.mktemp("keys")
    for number in range(3):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"key {number}", "-f", folder / str(number)],
            check=True,
        )
    return [(folder / f"{number}.pub").read_text() for number in range(3)]


def found(path: Path, name: str) -> str:
    """Return the line that OpenSSH finds for a name."""
    done = subprocess.run(["ssh-keygen", "-F", name, "-f", path], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[1]


def test_openssh_finds_what_was_pinned(tmp_path: Path, keys: list[str]) -> None:
    """By name and port; the folder and the file are the user's alone."""
    path = tmp_path / ".shed/known_hosts"
    pin(path, "127.0.0.1", 2222, keys[0])
    pin(path, "fd00::1", 2222, keys[1])
    pin(path, "lab.example", 22, keys[2])
    assert found(path, "[127.0.0.1]:2222") == "[127.0.0.1]:2222 " + " ".join(keys[0].split()[:2])
    assert keys[1].split()[1] in found(path, "[fd00::1]:2222")
    assert keys[2].split()[1] in found(path, "lab.example")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_another_key_is_refused_unless_it_replaces(tmp_path: Path, keys: list[str]) -> None:
    """The file stays as it was; with `replace` the old key is gone."""
    path = tmp_path / "known_hosts"
    pin(path, "lab", 2222, keys[0])
    before = path.read_bytes()
    with pytest.raises(ConflictError, match=r"\[lab\]:2222") as refused:
        pin(path, "lab", 2222, keys[1])
    assert refused.value.code == "HOST_KEY_CHANGED"
    assert path.read_bytes() == before
    pin(path, "lab", 2222, keys[0])
    assert path.read_bytes() == before
    pin(path, "lab", 2222, keys[1], replace=True)
    assert path.read_text() == "[lab]:2222 " + " ".join(keys[1].split()[:2]) + "\n"


def test_what_others_wrote_stays(tmp_path: Path, keys: list[str]) -> None:
    """Comments, markers, hosts of the same name elsewhere, bytes that are not UTF-8, a last line without an end."""
    path = tmp_path / "known_hosts"
    theirs = f"# mine \xff\n\n@revoked [lab]:2222 {keys[2]}lab {keys[2]}other,lab {keys[2]}".rstrip().encode("latin-1")
    path.write_bytes(theirs)
    pin(path, "lab", 2222, keys[0])
    pin(path, "lab", 2222, keys[1], replace=True)
    assert path.read_bytes() == theirs + b"\n[lab]:2222 " + " ".join(keys[1].split()[:2]).encode() + b"\n"


def test_many_at_once_lose_nothing(tmp_path: Path, keys: list[str]) -> None:
    """Ten pin ten hosts at the same time."""
    path = tmp_path / "known_hosts"
    threads = [threading.Thread(target=pin, args=(path, f"host-{number}", 2222, keys[0])) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(path.read_text().splitlines()) == 10


@pytest.mark.parametrize(
    "key", ["", "ssh-ed25519", "ssh-ed25519 not-base64", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==", "\n", "a b\nx"]
)
def test_what_is_no_key_is_not_pinned(tmp_path: Path, key: str) -> None:
    """A server's answer is not trusted to be one line of the right form."""
    with pytest.raises(DataError, match="is not a public key"):
        pin(tmp_path / "known_hosts", "lab", 2222, key)
    assert not (tmp_path / "known_hosts").exists()
