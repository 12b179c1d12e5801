"""The record of a shed: what is written is read, and nothing that is not a record is taken for one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed.sheds.metadata import DamagedError, Marker, Record, load, load_marker, save, save_marker

RECORD = Record("dev", "2026-01-02T03:04:05Z", "base", "sha256:" + "0" * 64, "qemu", 2, 2048, 5 << 30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dev").mkdir()
    return tmp_path / "dev"


@pytest.mark.parametrize(
    "record", [RECORD, replace(RECORD, local_dir="/home/me/ü", guest_uid=1000, guest_gid=1000, wanted="stopped")]
)
def test_what_is_saved_is_loaded(folder: Path, record: Record) -> None:
    """A record survives the way to disk and back, readable by its owner alone."""
    save(folder, record)
    assert load(folder) == record
    assert (folder / "metadata.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((folder / "metadata.json").read_text())["schema_version"] == 3


def changed(folder: Path, **changes: Any) -> None:
    save(folder, RECORD)
    path = folder / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_unknown_members_are_ignored(folder: Path) -> None:
    """A later version may add some."""
    changed(folder, colour="blue")
    assert load(folder) == RECORD


@pytest.mark.parametrize(
    "changes",
    [
        {"cpus": "2"},
        {"cpus": True},
        {"name": "other"},
        {"local_dir": 3},
        {"local_dir_mode": "wild"},
        {"wanted": "?"},
        {"lower_digest": None},
        {"schema_version": "3"},
    ],
)
def test_a_wrong_member_is_named(folder: Path, changes: dict[str, Any]) -> None:
    """The error names the file and the member."""
    changed(folder, **changes)
    with pytest.raises(DamagedError) as caught:
        load(folder)
    assert str(folder) in caught.value.message
    assert caught.value.message.split(": ", 2)[2].startswith((next(iter(changes)), "it names the shed"))


@pytest.mark.parametrize(("version", "age"), [(2, "older"), (4, "newer")])
def test_another_schema_says_what_to_do(folder: Path, version: int, age: str) -> None:
    """A record of another version is not guessed at."""
    changed(folder, schema_version=version)
    with pytest.raises(DamagedError, match=age) as caught:
        load(folder)
    assert caught.value.code == "SHED_SCHEMA"


def test_a_missing_file_is_damage(folder: Path) -> None:
    """A folder without a record is not a shed."""
    with pytest.raises(DamagedError, match="missing"):
        load(folder)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_bytes_end_in_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """No content of the file makes loading crash."""
    folder = tmp_path_factory.mktemp("x") / "dev"
    folder.mkdir()
    (folder / "metadata.json").write_bytes(data)
    (folder / ".creating").write_bytes(data)
    with pytest.raises(DamagedError):
        load(folder)
    with pytest.raises(DamagedError):
        load_marker(folder)


def test_a_marker_is_there_or_not(folder: Path) -> None:
    """No file is no marker; a saved one comes back."""
    assert load_marker(folder) is None
    marker = Marker("dev", "base", "sha256:" + "1" * 64, "2026-01-02T03:04:05Z")
    save_marker(folder, marker)
    assert load_marker(folder) == marker
