"""Sheds from images of every kind: Debian with sudo and git, and one without shell, libc or users."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def machine(way: str, tmp_path: Path) -> Iterator[Callable[[LayoutStore], Machine]]:
    """Make a machine with the images of a store."""
    machines: list[Machine] = []

    def make(store: LayoutStore) -> Machine:
        copy_store(store, tmp_path / "data/images")
        machines.append(Machine(tmp_path, way=way))
        return machines[0]

    yield make
    for made in machines:
        made.end()


def test_the_base_image_is_a_place_to_work(machine: Callable[[LayoutStore], Machine], base_store: LayoutStore) -> None:
    """The user is shed, who may become root; the workspace is theirs; the tools are there, and git works."""
    user = machine(base_store)
    user.shed("create", "dev")
    assert user.shed("exec", "dev", "--", "id", "-un") == "shed\n"
    assert user.shed("exec", "dev", "--", "pwd") == "/workspace\n"
    assert user.shed("exec", "dev", "--", "sudo", "-n", "id", "-u") == "0\n"
    for tool in ("bash", "git", "tmux", "sudo", "ssh", "curl", "python3", "make", "nano"):
        assert user.shed("exec", "dev", "--", "sh", "-c", f"command -v {tool}").endswith(f"/{tool}\n")
    script = (
        "git init -q r && cd r && echo x > f && git add f && git -c user.name=n -c user.email=e commit -qm m && "
        "git log --format=%s"
    )
    assert user.shed("exec", "dev", "--", "bash", "-c", script) == "m\n"
    assert user.shed("exec", "dev", "--", "cat", "/etc/hostname") == "dev\n"
    assert user.shed("exec", "dev", "--", "sh", "-c", "getcap -r /usr 2>/dev/null; stat -c %a /usr/bin/sudo").endswith(
        "4755\n"
    )


def test_an_image_without_a_shell_runs_what_it_has(
    machine: Callable[[LayoutStore], Machine], small_store: LayoutStore, tmp_path: Path
) -> None:
    """The agent brings all it needs: nothing of the image's is used but the program that was asked for."""
    user = machine(small_store)
    user.shed("create", "bare", "--image", "shell-less")
    assert user.shed("exec", "bare", "--", "/hello") == "hello from a static program\n"
    assert user.try_shed("exec", "bare", "--", "/hello", "7").returncode == 7
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(b"\0any bytes\xff")
    user.shed("cp", str(kept), "bare:/var/")  # without a tar, too
    user.shed("cp", "bare:/var/kept/.", str(tmp_path / "back"))
    assert (tmp_path / "back/file").read_bytes() == b"\0any bytes\xff"
    missing = user.try_shed("exec", "bare", "--", "sh", "-c", "true")
    assert missing.returncode == 127
    assert b"sh: command not found" in missing.stderr
    user.shed("stop", "bare")
    user.shed("start", "bare")
    assert user.shed("exec", "bare", "--", "/hello") == "hello from a static program\n"
