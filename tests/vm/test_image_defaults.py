"""How an image wants its commands to be run is how they run, until somebody says otherwise."""

import contextlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shed.oci.archive import open_archive
from shed.oci.pack import pack_archive
from shed.oci.selection import select_image
from shed.oci.store import LayoutStore
from support.images.kit import archive, copy_store
from support.layers.tars import Item, file, folder, symlink
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
PATH = "/opt/tool/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = "root:x:0:0:root:/root:/bin/bash\nshed:x:1000:1000::/home/shed:/bin/bash\ndev:x:1500:1500::/go:/bin/bash\n"
LAYER = [
    folder("go", uid=1500, gid=1500),
    folder("opt/tool/bin"),
    file("opt/tool/bin/tool", b"#!/bin/sh\necho it works\n", mode=0o755),
    file("etc/passwd", PASSWD.encode()),
    symlink("tmp", "var/tmp"),
]


def built(machine: Machine, folder: Path, name: str, items: list[Item], **settings: Any) -> None:
    """Build the image `name`: base, and a layer of `items`, with these settings."""
    with tarfile.open(folder / "layer.tar", "w") as layer:
        layer.addfile(tarfile.TarInfo("etc/.wh.nothing"))
        for info, data in items:
            layer.addfile(info, io.BytesIO(data))
    with open_archive(archive("base"), scratch=folder) as base:
        parent = base, select_image(base)
        pack_archive(
            folder / f"{name}.tar", [folder / "layer.tar"], parent=parent, settings=settings, compression="none"
        )
    machine.shed("image", "build", "-n", name, "--from-oci-archive", str(folder / f"{name}.tar"))


@pytest.fixture
def machine(way: str, base_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the base image."""
    copy_store(base_store, tmp_path / "data/images")
    made = Machine(tmp_path, way=way)
    yield made
    made.end()


def test_env_user_and_folder_are_those_of_the_image(machine: Machine, tmp_path: Path) -> None:
    """In commands and login shells, at the first start and the next; what is asked for wins.

    So does a folder of the host.  The image's /tmp is a link.
    """
    built(machine, tmp_path, "go", LAYER, Env=[f"PATH={PATH}", "GOPATH=/go"], User="dev", WorkingDir="/go")
    machine.shed("create", "one", "--image", "go")
    for _ in range(2):
        said = machine.shed("exec", "one", "--", "sh", "-c", "id -un; pwd; echo $GOPATH; tool; cd /tmp; pwd -P").split(
            "\n"
        )
        assert said[:5] == ["dev", "/go", "/go", "it works", "/var/tmp"]
        assert machine.shed("exec", "one", "--", "bash", "-lc", "tool; echo $GOPATH") == "it works\n/go\n"
        machine.shed("stop", "one")
        machine.shed("start", "one")
    asked = ("--user", "root", "--workdir", "/etc", "-e", "GOPATH=/mine", "-e", "PATH=/bin")
    script = "id -un; pwd; echo $GOPATH; command -v tool"
    assert machine.try_shed("exec", *asked, "one", "--", "sh", "-c", script).stdout == b"root\n/etc\n/mine\n"
    (tmp_path / "project").mkdir()
    machine.shed("create", "two", "--image", "go", "--local-dir", str(tmp_path / "project"))
    assert machine.shed("exec", "two", "--", "sh", "-c", "pwd; touch here; stat -c %U here") == "/workspace\ndev\n"
    assert (tmp_path / "project/here").stat().st_uid == (tmp_path / "project").stat().st_uid


def test_an_image_whose_user_is_not_there(machine: Machine, tmp_path: Path) -> None:
    """Nothing runs as root instead: the error names the user, and a user who is named can work."""
    built(machine, tmp_path, "ghostly", LAYER, User="ghost")
    machine.shed("create", "one", "--image", "ghostly")
    refused = machine.try_shed("exec", "one", "--", "id")
    assert refused.returncode == 125
    assert "no user 'ghost' in this image, whom it names as the user of commands" in refused.stderr.decode()
    assert machine.shed("exec", "--user", "shed", "one", "--", "id", "-un") == "shed\n"


def test_the_shed_has_variables_of_its_own(machine: Machine, tmp_path: Path) -> None:
    """In commands and login shells, at the first start and the next.  They win over the image's, a command's over them.

    No process of the server has a value among its words, and its log has none.
    """
    built(machine, tmp_path, "go", LAYER, Env=[f"PATH={PATH}", "GOPATH=/go"])
    (tmp_path / "env").write_text("GOPATH=/file\nTWO=two words\n")
    machine.shed("create", "dev", "--image", "go", "-e", "TOKEN=nobody-sees-this", "--env-file", str(tmp_path / "env"))
    script = 'echo "$GOPATH $TWO $TOKEN $SHED_NAME"'
    for _ in range(2):
        for words in (("sh", "-c", script), ("bash", "-lc", script)):
            assert machine.shed("exec", "dev", "--", *words) == "/file two words nobody-sees-this dev\n"
        assert machine.shed("exec", "dev", "-e", "GOPATH=/mine", "--", "sh", "-c", "echo $GOPATH") == "/mine\n"
        machine.shed("stop", "dev")
        machine.shed("start", "dev")
    assert machine.show("dev")["env"] == ["GOPATH", "TOKEN", "TWO"]
    for place in (*Path("/proc").glob("[0-9]*/cmdline"), *machine.data.glob("logs/*"), *machine.data.rglob("console*")):
        with contextlib.suppress(OSError):  # a process that has just ended
            assert b"nobody-sees-this" not in place.read_bytes(), place
