"""A shed's life with everything real: the command line, the server, QEMU, the guest."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from shed.sheds.upper import has_errors
from support.images.kit import copy_store
from support.vms.machine import Machine, ended
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def machine(way: str, small_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the images busybox and shell-less."""
    copy_store(small_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way=way)
    yield machine
    machine.end()


def test_a_file_survives_stop_and_start(machine: Machine) -> None:
    """create → exec → stop → start → the file is there → delete → nothing is left."""
    machine.shed("create", "dev", "--image", "busybox", "--upper-size", "2G")
    assert machine.show("dev")["status"] == "running"
    assert machine.shed("exec", "dev", "--", "sh", "-c", "cat > /root/kept; hostname", stdin=b"a line\n") == "dev\n"
    size = int(machine.shed("exec", "dev", "--", "sh", "-c", "df -k / | tail -n 1").split()[1])
    assert 1.8 * (1 << 20) < size <= 2 << 20  # the file system grew to the size asked for
    console = machine.data / "instances/dev/console.log"
    machine.shed("exec", "dev", "--", "sh", "-c", "seq 100 > /dev/console; echo first > /dev/console")
    wait_until(lambda: b"first\r\n" in console.read_bytes())
    machine.shed("system", "prune", "--logs", "--log-tail-bytes", "50", "--force")
    machine.shed("exec", "dev", "--", "sh", "-c", "echo second > /dev/console")
    wait_until(lambda: b"second\r\n" in console.read_bytes())
    assert console.stat().st_size < 100
    assert console.read_bytes().endswith(b"100\r\nfirst\r\nsecond\r\n")  # cut in place, while QEMU has it open
    machine.shed("stop", "dev")
    assert machine.show("dev")["status"] == "stopped"
    machine.shed("start", "dev")
    assert machine.shed("exec", "dev", "--", "cat", "/root/kept") == "a line\n"
    assert machine.try_shed("exec", "dev", "--", "sh", "-c", "exit 7").returncode == 7
    assert machine.try_shed("delete", "dev").returncode == 2  # nobody to ask
    machine.shed("delete", "--force", "dev")
    assert json.loads(machine.shed("list", "--json")) == []
    assert list((machine.data / "uppers").iterdir()) == []


def test_a_disk_grows_while_its_shed_runs(machine: Machine) -> None:
    """The guest has the space at once, its files stay, and the next start has it, too."""
    df = ("sh", "-c", "df -k / | tail -n 1")
    machine.shed("create", "dev", "--image", "busybox", "--upper-size", "1G")
    machine.shed("exec", "dev", "--", "sh", "-c", "echo mine >/root/kept")
    assert machine.shed("update", "dev", "--upper-size", "3G", "--cpus", "2").startswith("updated dev")
    size = int(machine.shed("exec", "dev", "--", *df).split()[1])
    assert 2.7 * (1 << 20) < size <= 3 << 20
    machine.shed("exec", "dev", "--", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=1200 && sync && rm /big")
    machine.shed("restart", "dev")
    assert machine.shed("exec", "dev", "--", "cat", "/sys/devices/system/cpu/online") == "0-1\n"
    assert int(machine.shed("exec", "dev", "--", *df).split()[1]) == size
    machine.shed("stop", "dev")
    machine.shed("rename", "dev", "later")
    machine.shed("start", "later")
    assert machine.shed("exec", "later", "--", "sh", "-c", "cat /root/kept; hostname") == "mine\nlater\n"


def test_a_guest_that_reboots_comes_back(machine: Machine) -> None:
    """By the signal that `reboot` sends to the first process: the same shed, another boot; power-off is final."""
    machine.shed("create", "dev", "--image", "busybox")
    before = machine.show("dev")["pid"]
    machine.try_shed("exec", "dev", "--", "sh", "-c", "echo mine >/root/kept; kill -39 1; sleep 60")
    wait_until(lambda: machine.show("dev").get("pid") not in {None, before})
    assert machine.shed("exec", "dev", "--", "cat", "/root/kept") == "mine\n"
    machine.try_shed("exec", "dev", "--", "sh", "-c", "kill -38 1; sleep 60")
    wait_until(lambda: machine.show("dev")["status"] == "stopped")


def test_a_vm_outlives_its_server_and_a_shed_its_vm(machine: Machine) -> None:
    """kill -9 of the server: the next one adopts the VM.  kill -9 of the VM: it is noticed, and the next command starts
    it again.
    """
    machine.shed("create", "dev", "--image", "busybox")
    before = machine.show("dev")["pid"]
    machine.shed("exec", "dev", "--", "sh", "-c", "echo still > /root/kept; sync")
    boot = machine.shed("exec", "dev", "--", "cat", "/proc/sys/kernel/random/boot_id")
    server = machine.server_pid()
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: ended(server))
    assert machine.shed("exec", "dev", "--", "cat", "/proc/sys/kernel/random/boot_id") == boot
    assert machine.server_pid() != server
    assert machine.show("dev")["pid"] == before

    os.kill(before, signal.SIGKILL)
    wait_until(lambda: machine.show("dev")["status"] == "stopped")
    assert machine.shed("exec", "dev", "--", "cat", "/root/kept") == "still\n"
    assert machine.show("dev")["pid"] != before


def test_a_guest_that_hangs_holds_nobody_up(way: str, small_store: LayoutStore, tmp_path: Path) -> None:
    """Its command's client can be ended, the shed stopped, its start given up; who waited for that is told."""
    copy_store(small_store, tmp_path / "data/images")
    machine = Machine(tmp_path, way=way, settings="  stop_timeout: 2s\n")
    machine.shed("create", "dev", "--image", "busybox")
    with machine.start("exec", "dev", "--", "sh", "-c", "echo up; exec sleep 1000") as command:
        assert command.stdout is not None
        assert command.stdout.read(3) == b"up\n"
        os.kill(machine.show("dev")["pid"], signal.SIGSTOP)
        command.terminate()
        assert b"dev: the shed does not answer" in command.communicate(timeout=120)[1]
        assert command.returncode == 143
    machine.shed("stop", "dev")
    record = machine.data / "instances/dev/vm.json"
    with machine.start("start", "dev") as start:
        wait_until(record.exists)
        os.kill(json.loads(record.read_text())["pid"], signal.SIGSTOP)
        began = time.monotonic()
        machine.shed("delete", "--force", "dev")
        assert time.monotonic() - began < 60  # half of what the start alone would have waited
        assert b"the start of shed 'dev' was ended: it is being deleted" in start.communicate(timeout=120)[1]
        assert start.returncode == 1
    assert json.loads(machine.shed("list", "--json")) == []
    machine.end()


def test_a_workspace_is_shared_with_the_host(machine: Machine, tmp_path: Path) -> None:
    """Edits on either side are seen by the other, also after a restart; a folder that vanished is told."""
    work = tmp_path / "work, with a comma"
    work.mkdir()
    (work / "from-host").write_text("host\n")
    machine.shed("create", "dev", "--image", "busybox", "--local-dir", str(work))
    assert (
        machine.shed("exec", "dev", "--", "sh", "-c", "cat /workspace/from-host; echo guest > /workspace/from-guest")
        == "host\n"
    )
    assert (work / "from-guest").read_text() == "guest\n"
    assert (work / "from-guest").stat().st_uid == work.stat().st_uid
    machine.shed("cp", str(work / "from-host"), "dev:copied")
    assert (work / "copied").read_text() == "host\n"
    machine.shed("stop", "dev")
    work.rename(tmp_path / "elsewhere")
    gone = machine.try_shed("start", "dev")
    assert gone.returncode == 1
    assert b"there is no such folder" in gone.stderr
    (tmp_path / "elsewhere").rename(work)
    machine.shed("start", "dev")
    assert machine.shed("exec", "dev", "--", "cat", "/workspace/from-guest") == "guest\n"


@pytest.mark.root
def test_a_full_disk_holds_a_shed_up_and_breaks_nothing(way: str, small_store: LayoutStore, tmp_path: Path) -> None:
    """What the host has no room for waits, `shed list` says so, and with room it is written; a shed that waits can be
    deleted.
    """
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", data], check=True)
    try:
        copy_store(small_store, data / "images")
        machine = Machine(tmp_path, way=way)
        machine.shed("create", "dev", "--image", "busybox")
        machine.shed("exec", "dev", "--", "sh", "-c", "echo before > /root/kept; sync")
        room = shutil.disk_usage(data).used + (16 << 20)
        subprocess.run(["mount", "-o", f"remount,size={room}", data], check=True)
        script = "dd if=/dev/urandom of=$0 bs=1M count=64 conv=fsync && md5sum < $0 > /root/sum && sync"
        with machine.start("exec", "dev", "--", "sh", "-c", script, "/root/big") as writing:
            wait_until(lambda: "stands still" in machine.show("dev").get("detail", ""))
            assert writing.poll() is None
            subprocess.run(["mount", "-o", f"remount,size={room + (512 << 20)}", data], check=True)
            assert writing.wait(120) == 0
        wait_until(lambda: "stands still" not in machine.show("dev").get("detail", ""))
        assert not has_errors(data / "uppers/dev/upper.ext4")
        machine.shed("stop", "dev")
        subprocess.run(["e2fsck", "-fn", data / "uppers/dev/upper.ext4"], check=True, stdout=subprocess.DEVNULL)
        machine.shed("start", "dev")
        assert (
            machine.shed("exec", "dev", "--", "sh", "-c", "cat /root/kept; md5sum < /root/big | cmp - /root/sum")
            == "before\n"
        )
        room = shutil.disk_usage(data).used + (8 << 20)
        subprocess.run(["mount", "-o", f"remount,size={room}", data], check=True)
        with machine.start("exec", "dev", "--", "sh", "-c", script, "/root/more"):  # what is written anew may fit
            wait_until(lambda: "stands still" in machine.show("dev").get("detail", ""))
            machine.shed("delete", "--force", "dev")
        machine.end()
    finally:
        subprocess.run(["umount", "--lazy", data], check=True)


def test_a_damaged_root_is_refused_and_leaves_nothing(machine: Machine) -> None:
    """A blob whose bytes changed does not boot; the error names it."""
    about = json.loads(machine.shed("image", "inspect", "busybox", "--json"))
    root = machine.data / "images/blobs" / about["annotations"]["io.shed.rootfs.erofs.digest"].replace(":", "/")
    content = bytearray(root.read_bytes())
    content[len(content) // 2] ^= 1
    root.unlink()  # the store's copy is a hardlink
    root.write_bytes(content)
    failed = machine.try_shed("create", "dev", "--image", "busybox")
    assert failed.returncode == 1
    assert b"damaged" in failed.stderr
    assert json.loads(machine.shed("list", "--json")) == []
    assert list((machine.data / "uppers").iterdir()) == []
