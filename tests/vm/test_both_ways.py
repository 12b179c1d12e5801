"""An image of each kind, booted and restored: who works in a shed cannot tell which."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.ports import free_port
from support.tools.ssh import Ssh
from support.tools.terminal import TIMEOUT, Terminal
from support.vms.machine import Machine
from support.vms.templates import COLD, WARM

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
IMAGES = ("base", "busybox", "shell-less")
WITH_A_SHELL = IMAGES[:2]


@pytest.fixture(scope="module", params=[COLD, WARM])
def way(request: pytest.FixtureRequest) -> str:
    """Both, whatever the others take."""
    return str(request.param)


class Sheds:
    """A machine with a shed of each image, named like it; a folder is shared with that of busybox."""

    def __init__(self, root: Path, store: LayoutStore, way: str) -> None:
        self.ssh = Ssh(root / "ssh", free_port())
        self.folder = root / "shared"
        self.folder.mkdir()
        (self.folder / "from-host").write_text("host\n")
        copy_store(store, root / "data/images")
        self.machine = Machine(root, way=way, settings=f"ssh_port: {self.ssh.port}\n")
        self.machine.shed("ssh-key", "add", self.ssh.public)
        self.boots = {}
        for image in IMAGES:
            words = ["--local-dir", str(self.folder)] if image == "busybox" else []
            made = json.loads(self.machine.shed("create", image, "--image", image, "--json", *words))
            self.boots[image] = made["shed"]["boot"]


@pytest.fixture(scope="module")
def sheds(way: str, base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sheds]:
    made = Sheds(tmp_path_factory.mktemp("both"), base_store, way)
    yield made
    made.machine.end()


def test_they_came_up_that_way(sheds: Sheds, way: str) -> None:
    """Whatever is in the image, and also when a folder is shared."""
    assert sheds.boots == dict.fromkeys(IMAGES, way)


@pytest.mark.parametrize("image", WITH_A_SHELL)
def test_a_command(sheds: Sheds, image: str) -> None:
    """Its input, both outputs, exit code, environment and user; the shed knows its name, size, time and randomness."""
    script = 'cat; echo "$A $SHED_NAME" >&2; id -u; hostname; cat /etc/hostname; test -s /etc/machine-id; exit 7'
    done = sheds.machine.try_shed("exec", "-u", "root", "-e", "A=b c", image, "--", "sh", "-c", script, stdin=b"in\n")
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (
        7,
        f"in\n0\n{image}\n{image}\n",
        f"b c {image}\n",
    )


def test_a_program_where_there_is_nothing_else(sheds: Sheds) -> None:
    """No shell, no libc, no user."""
    assert sheds.machine.shed("exec", "shell-less", "--", "/hello") == "hello from a static program\n"
    assert sheds.machine.try_shed("exec", "shell-less", "--", "/hello", "7").returncode == 7


@pytest.mark.parametrize("image", IMAGES)
def test_copies(sheds: Sheds, image: str, tmp_path: Path) -> None:
    """A folder there and back, and out as a stream."""
    (tmp_path / "kept/sub").mkdir(parents=True)
    data = os.urandom(300_000)
    (tmp_path / "kept/sub/file").write_bytes(data)
    sheds.machine.shed("cp", "-a", str(tmp_path / "kept"), f"{image}:/tmp/")
    sheds.machine.shed("cp", f"{image}:/tmp/kept/.", str(tmp_path / "back"))
    assert (tmp_path / "back/sub/file").read_bytes() == data
    done = sheds.machine.try_shed("cp", f"{image}:/tmp/kept", "-")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert "kept/sub/file" in archive.getnames()


@pytest.mark.parametrize("image", IMAGES)
def test_ssh(sheds: Sheds, image: str, tmp_path: Path) -> None:
    """A command where there is a shell, and files in any image."""
    if image in WITH_A_SHELL:
        done = sheds.ssh.run(f"{image}@shed", "cat; echo err >&2; exit 9", stdin=b"in", code=9)
        assert (done.stdout, done.stderr) == (b"in", b"err\n")
    (tmp_path / "data").write_bytes(os.urandom(100_000))
    batch = f"put {tmp_path}/data up\nget up {tmp_path}/back\nrm up\n"
    sheds.ssh.run("-q", "-b", "-", f"{image}@shed", program="sftp", stdin=batch.encode())
    assert (tmp_path / "back").read_bytes() == (tmp_path / "data").read_bytes()


@pytest.mark.parametrize("image", WITH_A_SHELL)
def test_a_terminal(sheds: Sheds, image: str) -> None:
    """A login shell of the terminal's size, with ctrl-C and an exit code."""
    terminal = Terminal()
    prompt = b"$ " if image == "base" else b"# "
    try:
        process = terminal.run("console", image, env=sheds.machine.environment)
        terminal.read_until(prompt)
        terminal.type(b"stty size 2>/dev/null || busybox stty size; sh -c 'echo up; exec sleep 1000'\r")
        terminal.read_until(b"31 97\r\nup\r\n")
        terminal.type(b"\x03")
        terminal.read_until(prompt)
        terminal.type(b"exit 9\r")
        assert process.wait(TIMEOUT) == 9
    finally:
        terminal.close()


def test_a_shared_folder(sheds: Sheds) -> None:
    """It is this shed's, and each side sees what the other writes."""
    script = "cat /workspace/from-host; echo guest > /workspace/from-guest"
    assert sheds.machine.shed("exec", "busybox", "--", "sh", "-c", script) == "host\n"
    made = sheds.folder / "from-guest"
    assert (made.read_text(), made.stat().st_uid) == ("guest\n", sheds.folder.stat().st_uid)


@pytest.mark.parametrize("image", IMAGES)
def test_stop_and_start(sheds: Sheds, image: str, way: str, tmp_path: Path) -> None:
    """A clean end; then files, identity and network card are as they were."""
    words = ("/hello",) if image == "shell-less" else ("sh", "-c", "cat /etc/machine-id /sys/class/net/e*/address")
    (tmp_path / "file").write_bytes(os.urandom(1000))
    sheds.machine.shed("cp", "-a", str(tmp_path / "file"), f"{image}:/root/kept")
    before = sheds.machine.shed("exec", image, "--", *words)
    sheds.machine.shed("stop", image)
    assert json.loads(sheds.machine.shed("start", image, "--json"))["shed"]["boot"] == way
    assert sheds.machine.shed("exec", image, "--", *words) == before
    sheds.machine.shed("cp", "-a", f"{image}:/root/kept", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
