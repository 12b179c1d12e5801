"""A folder of this machine and one of a real shed are kept alike, once and as they change."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow]


@pytest.fixture
def machine(way: str, base_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the image base."""
    copy_store(base_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way=way)
    yield machine
    machine.end()


def test_two_folders_are_kept_alike(machine: Machine, tmp_path: Path) -> None:
    """Edits of both sides arrive, a conflict keeps both, what would run here stays there, and a watch tells at once."""
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "a").write_text("ours")
    (ours / "run").write_text("#!/bin/sh")
    (ours / "run").chmod(0o755)
    rules = tmp_path / ".shed/sync.yaml"
    rules.parent.mkdir(exist_ok=True)
    rules.write_text(f"profiles: {{default: [{{from: {ours}, to: ~/work}}]}}")
    machine.shed("create", "dev", "--image", "base")

    def there(script: str) -> str:
        return machine.shed("exec", "dev", "--", "sh", "-ec", f"cd ~/work; {script}")

    assert "would send 2, receive 0" in machine.shed("sync", "dev", "--two-way", "--dry-run")
    assert "sent 2, received 0" in machine.shed("sync", "dev", "--two-way")
    assert there("cat a; stat -c %a run .; ls -A") == "ours755\n755\na\nrun\n"
    there(
        "echo new >b; mkdir -p d/empty; ln -s b link; chmod -x run; echo evil >.envrc; ln -s /etc/shadow out; echo t >a"
    )
    (ours / "a").write_text("o")
    done = machine.try_shed("sync", "dev", "--two-way", "--json")
    assert done.returncode == 3, done.stderr
    (rule,) = json.loads(done.stdout)["rules"]
    assert rule["conflicts"] == [{"path": "a", "kept_as": "a.conflict-dev"}]
    assert sorted(each["path"] for each in rule["left_out"]) == [".envrc", "out"]
    assert sorted(path.name for path in ours.iterdir()) == ["a", "a.conflict-dev", "b", "d", "link", "run"]
    assert (ours / "a").read_text() == "o"
    assert (ours / "a.conflict-dev").read_text() == "t\n"
    assert there("cat a a.conflict-dev") == "ot\n"
    assert not (ours / "run").stat().st_mode & 0o111
    (ours / "a.conflict-dev").unlink()
    (ours / "b").unlink()
    again = machine.try_shed("sync", "dev", "--two-way")
    assert (again.returncode, b"deleted 2 there and 0 here" in again.stdout) == (0, True), again.stderr
    with machine.start("sync", "dev", "--two-way", "--watch") as watching:
        assert watching.stderr is not None
        assert any(b"watching" in line for line in watching.stderr)
        (ours / "deep/er").mkdir(parents=True)
        (ours / "deep/er/file").write_text("later")
        found = ["exec", "dev", "--", "sh", "-c", "cat ~/work/deep/er/file"]
        wait_until(lambda: machine.try_shed(*found).stdout == b"later")
        there("echo back >deep/er/file; mv d moved; rm run")
        wait_until(lambda: (ours / "deep/er/file").read_text() == "back\n" and (ours / "moved/empty").is_dir())
        wait_until(lambda: not (ours / "run").exists() and not (ours / "d").exists())
        machine.shed("stop", "dev")
        (ours / "meanwhile").write_text("x")
        machine.shed("start", "dev")
        found[-1] = "cat ~/work/meanwhile"
        wait_until(lambda: machine.try_shed(*found).stdout == b"x")
        watching.send_signal(signal.SIGINT)
        watching.communicate()
    assert "sent 0, received 0, deleted 0 there and 0 here" in machine.shed("sync", "dev", "--two-way")
