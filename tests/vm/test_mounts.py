"""Several folders of the host in one shed, with a real VM: files both ways, each in its own mode, and ways out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from shed.sheds.mountspec import MOST
from support.images.kit import copy_store
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
_SECRET = "of the host alone"


class Host:
    """A machine with the folders `notes` (to be written), `models` (to be read) and `trusted` (as the user)."""

    def __init__(self, root: Path, store: LayoutStore, way: str) -> None:
        self.root = root
        for name in ("notes", "models", "trusted", "work"):
            (root / name).mkdir()
        (root / "models/weights").write_text("weights\n")
        (root / "outside").write_text(_SECRET)
        copy_store(store, root / "data/images")
        self.machine = Machine(root, way=way)
        self.shed = self.machine.shed

    def path(self, name: str) -> str:
        return str(self.root / name)

    def create(self, name: str) -> None:
        wanted = (f"{self.path('notes')}:/notes", f"{self.path('models')}:/srv/models:ro")
        mounts = [word for mount in (*wanted, f"{self.path('trusted')}:/trusted:git-rw") for word in ("--mount", mount)]
        self.shed("create", name, "--image", "busybox", *mounts)

    def sh(self, script: str) -> str:
        """Return what a script of root in the shed prints, errors too."""
        return self.shed("exec", "-u", "root", "dev", "--", "sh", "-c", f"exec 2>&1; {script}\ntrue")


@pytest.fixture
def host(way: str, small_store: LayoutStore, tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path, small_store, way)
    host.create("dev")
    yield host
    host.machine.end()


def test_folders_side_by_side(host: Host) -> None:
    """Files both ways, over a stop and a start; and what is changed of a stopped shed, it has from then on."""
    for _ in range(2):
        assert host.sh("cat /srv/models/weights") == "weights\n"
        host.sh("echo from the shed >> /notes/a; mkdir -p /trusted/x; echo 1 > /trusted/x/y")
        host.shed("stop", "dev")
        host.shed("start", "dev")
    assert (host.root / "notes/a").read_text() == "from the shed\n" * 2
    assert (host.root / "trusted/x/y").read_text() == "1\n"
    (host.root / "notes/b").write_text("from the host\n")
    assert host.sh("cat /notes/b") == "from the host\n"
    host.shed("stop", "dev")
    host.shed("mount", "rm", "dev", "/notes", "/trusted")
    host.shed("mount", "add", "dev", f"{host.path('work')}:/w/deep/in")
    host.shed("start", "dev")
    assert host.sh("ls -A /notes; ls -A /trusted; echo 1 > /w/deep/in/made; mount | grep -c ' type 9p '") == "3\n"
    assert (host.root / "work/made").read_text() == "1\n"


def test_each_in_its_own_mode(host: Host) -> None:
    """Root in the guest writes nothing where it may only read, and makes hooks only where it may; set-id bits are
    refused everywhere.
    """
    before = (host.root / "models").stat().st_mtime_ns
    said = host.sh("mount -o remount,rw /srv/models; echo x > /srv/models/x; rm /srv/models/weights; ls /srv/models")
    assert said.count("Read-only file system") == 2, said
    assert said.endswith("weights\n")
    assert (host.root / "models").stat().st_mtime_ns == before
    attack = "mkdir .git && mkdir .git/hooks; echo x > .git/hooks/pre-commit; echo x > .git/config; chmod 4755 plain"
    assert host.sh(f"cd /notes; touch plain; {attack}").count("Operation not permitted") == 3
    assert not (host.root / "notes/.git/hooks/pre-commit").exists()
    assert not (host.root / "notes/.git/config").exists()
    assert host.sh(f"cd /trusted; touch plain; {attack}").count("Operation not permitted") == 1
    assert (host.root / "trusted/.git/hooks/pre-commit").exists()
    assert not any(path.stat().st_mode & 0o6000 for path in host.root.glob("*/plain"))


def test_no_way_out(host: Host) -> None:
    """Links that lead out, of the guest and of the host, and `..`, find nothing of the host."""
    (host.root / "notes/out").symlink_to(host.root / "outside")
    (host.root / "notes/up").symlink_to("..")
    names = "/notes/out /notes/up/outside /notes/mine /notes/../outside /notes/up/models/weights"
    said = host.sh(f"ln -s {host.root}/outside /notes/mine; cat {names} {host.root}/outside")
    assert _SECRET not in said
    assert "weights\n" not in said
    assert said.count("No such file") == 6, said
    assert (host.root / "notes/mine").readlink() == host.root / "outside"


def test_as_many_as_there_can_be(host: Host) -> None:
    """Each is where it was wanted, and leads to its own folder, beside a workspace of the host's."""
    names = [f"m{number}" for number in range(MOST)]
    for name in names:
        (host.root / name).mkdir()
    words = [word for name in names for word in ("--mount", f"{host.path(name)}:/many/{name}")]
    host.shed("create", "many", "--image", "busybox", "--local-dir", host.path("work"), *words)
    script = "for name in /many/*; do basename $name > $name/said; done; echo work > /workspace/said"
    host.shed("exec", "-u", "root", "many", "--", "sh", "-c", script)
    assert {name: (host.root / name / "said").read_text() for name in [*names, "work"]} == {
        name: f"{name}\n" for name in [*names, "work"]
    }


def test_a_folder_that_another_shed_turns_into_a_link(host: Host) -> None:
    """The shed that has it does not start with what the link leads to, and starts again when the folder is back."""
    (host.root / "secret").mkdir()
    (host.root / "notes/b").mkdir()
    host.shed("create", "other", "--image", "busybox", "--local-dir", host.path("notes/b"))
    host.shed("stop", "other")
    host.sh(f"cd /notes && mv b c && ln -s {host.path('secret')} b")
    assert (host.root / "notes/b").is_symlink()
    refused = host.machine.try_shed("start", "other")
    assert refused.returncode == 1
    assert b"a link is on the way" in refused.stderr
    assert host.machine.show("other")["status"] == "stopped"
    host.sh("cd /notes && rm b && mv c b")
    host.shed("start", "other")


def test_given_and_taken_while_it_runs(host: Host) -> None:
    """A folder comes and is there; it goes, and what the guest has open in it, or mounts by hand, is of no use."""
    work = host.root / "work"
    (work / "file").write_text("before\n")
    host.shed("mount", "add", "dev", f"{work}:/w/deep/in")
    assert host.sh("cat /w/deep/in/file; echo made > /w/deep/in/made") == "before\n"
    assert (work / "made").read_text() == "made\n"
    host.sh(f"({_HOLDS}) >/run/said 2>&1 & while ! grep -q held /run/said; do sleep 0.1; done")
    refused = host.machine.try_shed("mount", "rm", "dev", "/w/deep/in")
    assert (refused.returncode, b"--force" in refused.stderr) == (1, True), refused.stderr
    assert host.sh("cat /w/deep/in/file") == "before\n"
    host.shed("mount", "rm", "dev", "--force", "/w/deep/in")
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    (work / "secret").write_text(_SECRET)
    said = host.sh("touch /run/go; while ! grep -q end /run/said; do sleep 0.1; done; cat /run/said")
    assert _SECRET not in said
    assert "before" not in said
    every = "/run/shed-mounts/all"  # where the guest has all of them
    said = host.sh(f"find {every} -maxdepth {str(work).count('/') + 2}; cat {every}/held{work}/secret")
    assert f"{every}/held{host.root}/notes\n" in said
    assert f"{every}/held{work}\n" not in said
    assert _SECRET not in said
    (work / "secret").unlink()
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before
    host.shed("mount", "add", "dev", f"{work}:/again:ro")
    assert host.sh("cat /again/file; echo x > /again/x").startswith("before\n")
    assert not (work / "x").exists()
    host.shed("stop", "dev")
    host.shed("start", "dev")
    assert host.sh("cat /again/file; ls -A /w/deep/in") == "before\n"


_HOLDS = """
cd /w/deep/in
exec 3<>file 4<.
echo held
while ! test -e /run/go; do sleep 0.1; done
cat <&3
echo attack >&3
ls /proc/self/fd/4/
ls .
echo attack > new
mkdir made-later
cat secret ../in/secret
echo end
"""
