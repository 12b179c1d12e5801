"""What has changed in a repository of a real shed comes back, and files go there by rules."""

from __future__ import annotations

import json
import subprocess
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


def test_work_in_a_shed_comes_back_as_changes(machine: Machine, tmp_path: Path) -> None:
    """A bundle of ours is cloned there, changed, shown and applied; an editor's tasks and a link stay there."""
    ours = tmp_path / "ours"
    subprocess.run(["git", "init", "-q", ours], check=True)
    (ours / "a.txt").write_text("one\ntwo\n")
    subprocess.run(["git", "-C", ours, "add", "."], check=True)
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", ours, *who, "commit", "-qm", "first"], check=True)
    subprocess.run(["git", "-C", ours, "bundle", "create", "-q", tmp_path / "ours.bundle", "--all"], check=True)
    machine.shed("create", "dev", "--image", "base")
    machine.shed("cp", str(tmp_path / "ours.bundle"), "dev:/tmp/")
    work = """
        git clone -q /tmp/ours.bundle . && git config user.name x && git config user.email x@example.org
        echo 2 >a.txt && git commit -qam second && printf 'new\\033[2J\\n' >b.txt && mkdir .vscode
        echo '{}' >.vscode/tasks.json && ln -s /etc/passwd link
    """
    machine.shed("exec", "dev", "--", "sh", "-ec", work)
    patch = machine.try_shed("diff", "dev").stdout
    assert patch.count(b"diff --git ") == 4
    assert b"+new\x1b[2J" in patch
    checked = machine.shed("apply", "dev", str(ours), "--check")
    assert "would change 2 of 4 files" in checked
    assert "left out: Visual Studio Code runs tasks from it" in checked
    assert not (ours / "b.txt").exists()
    refused = machine.try_shed("apply", "dev", str(ours))
    assert b"refusing to apply" in refused.stderr
    applied = machine.try_shed("apply", "dev", str(ours), "--force")
    assert b"changed 2 of 4 files" in applied.stdout
    assert b"left out: 2" in applied.stderr
    assert ((ours / "a.txt").read_text(), (ours / "b.txt").read_text()) == ("2\n", "new\x1b[2J\n")
    assert sorted(path.name for path in ours.iterdir()) == [".git", "a.txt", "b.txt"]
    rules = tmp_path / ".shed/sync.yaml"
    rules.parent.mkdir(exist_ok=True)
    rules.write_text(f"profiles: {{default: [{{from: {ours}, to: ~/ours, exclude: [.git], delete: true}}]}}")
    assert "would send 2, deleted 0" in machine.shed("sync", "dev", "--dry-run")
    assert "sent 2, deleted 0" in machine.shed("sync", "dev")
    assert machine.shed("exec", "dev", "--", "sh", "-c", "cd; cat ours/a.txt; rm ours/b.txt; echo >ours/c.txt") == "2\n"
    assert "sent 1, deleted 1" in machine.shed("sync", "dev")
    with machine.start("sync", "dev", "--watch") as watching:
        assert watching.stderr is not None
        assert any(b"watching" in line for line in watching.stderr)
        (ours / "d.txt").write_text("later")
        wait_until(lambda: machine.try_shed("exec", "dev", "--", "sh", "-c", "cat ~/ours/d.txt").stdout == b"later")
        watching.terminate()
    elsewhere = machine.try_shed("diff", "dev", "--folder", "/etc")
    assert (elsewhere.returncode, b"no git repository" in elsewhere.stderr) == (1, True)
    assert b"no commit 'x'" in machine.try_shed("diff", "dev", "--base", "x").stderr
    machine.shed("exec", "dev", "-u", "root", "--", "sh", "-ec", "echo >>/etc/motd; rm -r /usr/share/doc; touch /opt/x")
    changes = machine.shed("diff", "dev", "--image")
    assert {"M /etc/motd", "D /usr/share/doc", "A /opt/x", "A /workspace/a.txt"} <= set(changes.splitlines()), changes
    assert json.loads(machine.shed("--json", "diff", "dev", "--image"))["changes"][-1].keys() == {"change", "path"}
    assert "/run/shed-changes" not in machine.shed("exec", "dev", "--", "cat", "/proc/mounts")
