"""A repository in a real guest: by the git of a real image, from a server of the internet, under closed rules."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.client.sync.api import Api
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.registries.certificates import make_certificate
from support.servers import tlsorigin
from support.servers.netlab import lab
from support.servers.tlsorigin import PASSWORD
from support.tools.sshd import Sshd
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
NAME = "git.example.com"
URL, SSH = f"https://{NAME}/git/work", f"git@{NAME}:work"
PROVISION = """
hooks:
  install: tool.sh
  startup: echo startup >>~/said; (sleep 1000; echo late) &
  shutdown: echo shutdown >>~/said; sync
env:
  COLOUR: green
"""


def repository(place: Path, *, files: int) -> None:
    """Make a repository of two commits with so many files of 20 kB."""
    chosen = random.Random(1)
    subprocess.run(["git", "init", "-q", "-b", "main", place], check=True)
    for number in range(files):
        (place / f"{number}.bin").write_bytes(chosen.randbytes(20_000))
    (place / ".shed").mkdir()
    (place / ".shed/provision.yaml").write_text(PROVISION)
    (place / ".vimrc").write_text("set nu\n")
    (place / "tool.sh").write_text("#!/bin/bash\necho installed by $(whoami) in $SHED_NAME, $COLOUR\n")
    for message in ("first", "second"):
        (place / "README").write_text(message)
        subprocess.run(["git", "-C", place, "add", "-A"], check=True)
        person = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", "-C", place, *person, "commit", "-q", "-m", message], check=True)


@pytest.fixture(scope="module")
def machine(way: str, base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose sheds reach nothing, with the secret ``git-token`` for a server that asks everybody."""
    root = tmp_path_factory.mktemp("repository")
    certificate = make_certificate(root / "certificate", NAME)
    (root / "both.pem").write_bytes(certificate.chain.read_bytes() + certificate.key.read_bytes())
    repository(root / "git/work", files=100)
    repository(root / "git/dots", files=0)
    settings = f"egress:\n  default: [offline]\n  extra_cas: [{certificate.authority}]\n"
    stack = contextlib.ExitStack()
    with lab(tmp_path_factory.mktemp("lab"), guest=False) as net, stack, pytest.MonkeyPatch.context() as patch:
        sshd = stack.enter_context(Sshd(root / "sshd", namespace=net.internet))
        git = f"git:\n  extra_known_hosts: ['{NAME} {sshd.host_key}']\n"
        made = Machine(root / "machine", way=way, settings=settings + git)
        copy_store(base_store, made.data / "images")
        for name in ("SHED_DATA_DIR", "SHED_RUNTIME_DIR", "HOME"):
            patch.setenv(name, made.environment[name])
        net.start_in_internet("python3", "-u", tlsorigin.__file__, str(root), "443", str(root / "both.pem"))
        net.start_in_host(f"exec {made.command[0]} -m shed.server.main serve 2>&1", **made.environment)
        net.names({NAME: ["93.184.216.34"]})
        try:
            Api().set_secret("git-token", hosts=[NAME], value=PASSWORD)
            yield made
        finally:
            made.end()


def test_a_private_repository(machine: Machine) -> None:
    """It is in the workspace, and the user's; what opens it is nowhere in the guest, nor in a log or an answer; git
    goes on to work there, and nothing else is reached.
    """
    identity = "[user]\nname = Ada Lovelace\nemail = ada@example.com\n"
    Path(machine.environment["HOME"], ".gitconfig").write_text(identity)
    words = ("--repo", URL, "--dotfiles", f"https://{NAME}/git/dots", "--secret", "git-token")
    made = machine.try_shed("-v", "create", "dev", "--image", "base", *words, "--timezone", "Asia/Tokyo")
    said = made.stderr.decode()
    assert made.returncode == 0, said + machine.consoles()
    assert f"reach {NAME}:443 for that" in said
    assert machine.shed("exec", "dev", "--", "sh", "-c", "stat -c %U README .git && git status --short").split() == [
        "shed",
        "shed",
    ]
    script = "git log --format=%s; git fetch -q --unshallow && git log --format=%s; cat .git/config ~/.gitconfig"
    done = machine.shed("exec", "dev", "--", "sh", "-c", script)
    assert done.splitlines()[:3] == ["second", "second", "first"], done
    assert PASSWORD not in done
    assert f"url = {URL}" in done
    assert "name = Ada Lovelace\n\temail = ada@example.com\n" in done
    assert json.loads(machine.shed("--json", "egress", "show", "dev"))["rules"] == [
        f"repository: allow {NAME} ports 443"
    ]
    script = "readlink ~/.vimrc; cat ~/.vimrc; date -d @0 +%H%Z; cat /etc/timezone"
    done = machine.shed("exec", "dev", "--", "sh", "-c", script)
    assert done == "/home/shed/.dotfiles/.vimrc\nset nu\n09JST\nAsia/Tokyo\n"
    assert "installed by shed in dev, green" in said
    log = machine.shed("exec", "dev", "--", "sh", "-c", "cat /var/log/shed/install.log; echo $COLOUR")
    assert log == "installed by shed in dev, green\ngreen\n"
    machine.shed("stop", "dev")
    machine.shed("start", "dev")
    assert machine.shed("exec", "dev", "--", "cat", "/home/shed/said").split() == ["startup", "shutdown", "startup"]
    assert machine.try_shed("exec", "dev", "--", "curl", "-sSm", "20", "https://other.example.com").returncode != 0
    for path in [*machine.data.glob("logs/*"), *machine.data.glob("instances/dev/*.json")]:
        assert PASSWORD.encode() not in path.read_bytes(), path


def test_a_folder_of_the_host(machine: Machine, tmp_path: Path) -> None:
    """What its project says is read as soon as the folder is there, and run in the shed."""
    (tmp_path / ".shed").mkdir()
    (tmp_path / ".shed/provision.yaml").write_text("hooks: {install: hostname >made-in}")
    machine.shed("create", "folder", "--image", "base", "--local-dir", str(tmp_path))
    assert (tmp_path / "made-in").read_text() == "folder\n"
    machine.shed("delete", "--force", "folder")


def test_a_host_that_is_reached_by_ssh(machine: Machine) -> None:
    """By the key that the server's configuration has of it; who has no key there is told how to go on."""
    made = machine.try_shed("--json", "create", "ssh", "--image", "base", "--repo", SSH)
    answer = json.loads(made.stdout)["shed"]
    (sentence,) = answer["failed"]
    assert made.returncode == 3
    assert "lets nobody in without a key" in sentence
    assert answer["repo_hosts"] == [f"{NAME}:22"]
    command = f"sed -i /{NAME}/d ~/.ssh/known_hosts; ssh -o BatchMode=yes git@{NAME}"
    assert b"Host key verification failed" in machine.try_shed("exec", "ssh", "--", "sh", "-c", command).stderr
    machine.shed("delete", "--force", "ssh")
