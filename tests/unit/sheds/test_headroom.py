"""What a host has left, by the files of its kernel: a container has no more than its groups allow."""

from pathlib import Path

import pytest

from shed.sheds import headroom
from shed.sheds.headroom import Memory, memory

GIB = 1 << 30


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with 8 GiB available and 1 of swap, whose server is in the group ``a/b``."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {8 << 20} kB\nSwapFree: {1 << 20} kB\n")
    (tmp_path / "proc/self/cgroup").write_text("1:name=systemd:/x\n0::/a/b\n")
    (tmp_path / "groups/a/b").mkdir(parents=True)
    monkeypatch.setattr(headroom, "PROC", tmp_path / "proc")
    monkeypatch.setattr(headroom, "GROUPS", tmp_path / "groups")
    return tmp_path


def limit(folder: Path, most: str, used: int, cached: int = 0) -> None:
    """Give a group its files."""
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\nactive_file 1\n")


def test_a_host_without_limits(host: Path) -> None:
    """Whether its groups say so, or have no such files, or there are none."""
    assert memory() == Memory(8 * GIB, GIB)
    limit(host / "groups/a/b", "max", GIB)
    assert memory() == Memory(8 * GIB, GIB)
    (host / "proc/self/cgroup").write_text("4:memory:/x\n")
    assert memory() == Memory(8 * GIB, GIB)


def test_a_container_has_what_its_groups_allow(host: Path) -> None:
    """The tightest of them counts, less what is used; what is cached can be had back."""
    limit(host / "groups/a/b", str(6 * GIB), 3 * GIB, cached=GIB)
    assert memory() == Memory(4 * GIB, 0)
    limit(host / "groups/a", str(2 * GIB), GIB)
    assert memory() == Memory(GIB, 0)
    limit(host / "groups/a", str(GIB), 2 * GIB)
    assert memory() == Memory(0, 0)
    limit(host / "groups/a", str(100 * GIB), GIB)
    limit(host / "groups/a/b", str(100 * GIB), GIB)
    assert memory() == Memory(8 * GIB, GIB)


def test_files_that_make_no_sense_allow_no_less(host: Path) -> None:
    """They are no reason to refuse."""
    limit(host / "groups/a/b", "much", GIB)
    assert memory() == Memory(8 * GIB, GIB)
