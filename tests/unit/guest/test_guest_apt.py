"""The host's settings for apt in a shed."""

from pathlib import Path

from shed.guest.configure import apt

LINES = 'Acquire::http::Proxy "http://cache:3142";\n'


def test_settings_come_and_go(tmp_path: Path) -> None:
    """Where there is an apt; an image without one gets no file."""
    apt.set_up(LINES, str(tmp_path))
    apt.set_up("", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    folder = tmp_path / "etc/apt/apt.conf.d"
    folder.mkdir(parents=True)
    apt.set_up(LINES, str(tmp_path))
    assert [path.read_text() for path in folder.iterdir()] == [LINES]
    before = (folder / "90shed-host").stat().st_ino
    apt.set_up(LINES, str(tmp_path))
    assert (folder / "90shed-host").stat().st_ino == before
    apt.set_up("", str(tmp_path))
    assert list(folder.iterdir()) == []
