"""`shed run` in real sheds: what goes in, what comes out, and that nothing is left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine
from support.vms.templates import WARM
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
SCRIPT = """read word; echo $word $A $(cat /workspace/given) $(pwd); mkdir made; echo x >made/file
ln -s /etc/shadow made/link; exit 7"""


@pytest.fixture
def machine(base_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the base image."""
    copy_store(base_store, tmp_path / "data/images")
    made = Machine(tmp_path, way=WARM)
    made.shed("server", "start")
    yield made
    made.end()


def test_what_goes_in_and_comes_out(machine: Machine, tmp_path: Path) -> None:
    """A folder, a variable, standard input; the exit code and files, in which a link stays a link."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/given").write_text("given\n")
    words = ("--image", "busybox", "-v", f"{tmp_path}/folder:/workspace:ro", "-e", "A=1", "-w", "/tmp")
    out = tmp_path / "out"
    done = machine.try_shed(
        *("run", "--rm", *words, "--out", f"/tmp/made:{out}", "--", "sh", "-c", SCRIPT), stdin=b"in\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in 1 given /tmp\n", b"")
    assert (out / "made/file").read_text() == "x\n"
    assert str((out / "made/link").readlink()) == "/etc/shadow"
    assert machine.shed("list", "-q") == ""
    done = machine.try_shed("run", "--rm", "--image", "busybox", "--out", f"/nowhere:{out}", "/nothing")
    assert (done.returncode, b"/nothing" in done.stderr, b"/nowhere" in done.stderr) == (127, True, True)


def test_a_client_that_is_killed_leaves_nothing(machine: Machine) -> None:
    """Its shed, the folders and the process of that go.  Until then others can use and change it."""
    running = machine.start("run", "--rm", "--name", "dev", "--image", "busybox", "--", "sh", "-c", "echo a; sleep 999")
    assert running.stdout is not None
    assert running.stdout.readline() == b"a\n"
    shown = machine.show("dev")
    assert shown["attached"] is True
    assert machine.shed("list", "-f", "status=running", "--format", "{name} {attached}") == "dev True\n"
    machine.shed("update", "dev", "-e", "B=2")
    assert machine.shed("exec", "dev", "--", "sh", "-c", "echo $B") == "2\n"
    running.kill()
    running.communicate()
    wait_until(lambda: not Path(f"/proc/{shown['pid']}").exists())
    wait_until(lambda: not (machine.data / "uppers/dev").exists())
    assert machine.shed("list", "-q") == ""
    assert "its client has left" in machine.shed("events")
