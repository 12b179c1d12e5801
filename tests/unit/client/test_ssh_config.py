"""The user's ~/.ssh/config gets our lines at its top, and is otherwise left alone, byte for byte."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from shed.client.ssh_config import Host, aliases, install, merged, read, uninstall
from shed.errors import DataError


def host(folder: Path, shed: str, *, server: str = "local", port: int = 2222) -> Host:
    """Return a shed as a host."""
    return Host(f"shed-{shed}", server, shed, "localhost", port, folder / "known hosts")


@pytest.mark.parametrize("content", [
    None,
    b"",
    b"Host mine\n    User me\n",
    b"Host mine\n    User me",
    b"\n\n# comment \xff\xfe\r\nHost mine\r\n\tUser me\r\n\n\n",
    b"Include other\n# >>> somebody else >>>\n",
])  # fmt: skip
def test_the_file_comes_back_as_it_was(tmp_path: Path, content: bytes | None) -> None:
    """Also when it was not there, has odd ends or bytes, and after installing again."""
    theirs, ours = tmp_path / ".ssh/config", tmp_path / ".shed/ssh_config"
    if content is not None:
        theirs.parent.mkdir()
        theirs.write_bytes(content)
        theirs.chmod(0o640)
    for number in range(3):
        install(theirs, ours, merged(read(ours), [host(tmp_path, f"s{number}")], keep_servers=(), keep_all=True))
        assert theirs.read_bytes().endswith(content or b"")
    assert aliases(read(ours)) == ["shed-s0", "shed-s1", "shed-s2"]
    assert theirs.read_bytes().count(b"Include ") == (2 if content and b"Include" in content else 1)
    assert theirs.stat().st_mode & 0o777 == (0o600 if content is None else 0o640)
    assert uninstall(theirs, ours) == ["shed-s0", "shed-s1", "shed-s2"]
    assert (theirs.read_bytes() if theirs.exists() else None) == content
    assert not ours.exists()
    assert uninstall(theirs, ours) == []


def test_openssh_reads_it(tmp_path: Path) -> None:
    """Before all that the user's file says, whatever that ends in; odd folders' names, too."""
    home = tmp_path / "a home 100%"
    theirs, ours = home / ".ssh/config", home / ".shed/ssh_config"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("Host other\n    User me\n\nHost *\n    Port 9\n    User everybody")
    hosts = [
        host(home, "dev"),
        Host(
            "shed-far", "lab", "far", "localhost", 2022, home / "known", key_name="[lab]:2022", jump="ssh://me@lab:2200"
        ),
    ]
    install(theirs, ours, merged("", hosts, keep_servers=(), keep_all=False))

    def asked(name: str) -> dict[str, str]:
        done = subprocess.run(["ssh", "-G", "-F", theirs, name], capture_output=True, text=True, check=True)
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)

    dev, far, other = asked("shed-dev"), asked("shed-far"), asked("other")
    assert (dev["hostname"], dev["port"], dev["user"], dev["stricthostkeychecking"]) == (
        "localhost",
        "2222",
        "dev",
        "true",
    )
    assert dev["userknownhostsfile"].replace("%%", "%") == str(home / "known hosts")
    assert (far["proxyjump"], far["hostkeyalias"], far["user"]) == ("me@lab:2200", "[lab]:2022", "far")
    assert (other["user"], other["port"]) == ("me", "9")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that a user keeps among others of its kind is what is written."""
    (tmp_path / "dotfiles").mkdir()
    real = tmp_path / "dotfiles/ssh"
    real.write_text("Host mine\n")
    theirs, ours = tmp_path / ".ssh/config", tmp_path / ".shed/ssh_config"
    theirs.parent.mkdir()
    theirs.symlink_to("../dotfiles/ssh")
    install(theirs, ours, "")
    assert theirs.is_symlink()
    assert real.read_text().endswith("Host mine\n")
    uninstall(theirs, ours)
    assert theirs.is_symlink()
    assert real.read_text() == "Host mine\n"


def test_lines_that_were_damaged_are_not_guessed(tmp_path: Path) -> None:
    """Nothing is written, and the file is named."""
    theirs, ours = tmp_path / ".ssh/config", tmp_path / ".shed/ssh_config"
    install(theirs, ours, "")
    damaged = theirs.read_bytes().replace(b"# <<< shed <<<\n", b"") + b"Host mine\n"
    theirs.write_bytes(damaged)
    for work in (lambda: install(theirs, ours, ""), lambda: uninstall(theirs, ours)):
        with pytest.raises(DataError, match=str(theirs)):
            work()
        assert theirs.read_bytes() == damaged


def test_lines_that_were_moved_come_back_to_the_top(tmp_path: Path) -> None:
    """Behind a Host they would be that host's alone."""
    theirs, ours = tmp_path / ".ssh/config", tmp_path / ".shed/ssh_config"
    theirs.parent.mkdir()
    theirs.write_text("Host mine\n")
    install(theirs, ours, "")
    lines = theirs.read_bytes().removesuffix(b"Host mine\n")
    theirs.write_bytes(b"Host mine\n" + lines)
    install(theirs, ours, "")
    assert theirs.read_bytes() == lines + b"Host mine\n"


def test_which_hosts_stay(tmp_path: Path) -> None:
    """Those of servers that could not be asked, or all when one shed is added; others are gone when their shed is."""
    old = merged("", [host(tmp_path, "a"), host(tmp_path, "b", server="lab")], keep_servers=(), keep_all=False)
    new = [host(tmp_path, "c"), host(tmp_path, "a", port=9)]
    assert aliases(merged(old, new, keep_servers=(), keep_all=False)) == ["shed-a", "shed-c"]
    assert aliases(merged(old, new, keep_servers=["lab"], keep_all=False)) == ["shed-a", "shed-b", "shed-c"]
    assert aliases(merged(old, new[:1], keep_servers=(), keep_all=True)) == ["shed-a", "shed-b", "shed-c"]
    assert "Port 9" in merged(old, new, keep_servers=(), keep_all=False)


def test_many_at_once(tmp_path: Path) -> None:
    """The user's file is whole after installs at the same time."""
    theirs, ours = tmp_path / ".ssh/config", tmp_path / ".shed/ssh_config"
    theirs.parent.mkdir()
    theirs.write_bytes(os.urandom(100_000))
    before = theirs.read_bytes()
    threads = [threading.Thread(target=install, args=(theirs, ours, "")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert theirs.read_bytes().endswith(before)
    uninstall(theirs, ours)
    assert theirs.read_bytes() == before
