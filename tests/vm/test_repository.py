"""A repository in a real guest: by the git of a real image, from a server of the internet, under closed rules."""

from __future__ import annotations

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
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
NAME = "git.example.com"
URL = f"https://{NAME}/git/work"


def repository(place: Path, *, files: int) -> None:
    """Make a repository of two commits with so many files of 20 kB."""
    chosen = random.Random(1)
    subprocess.run(["git", "init", "-q", "-b", "main", place], check=True)
    for number in range(files):
        (place / f"{number}.bin").write_bytes(chosen.randbytes(20_000))
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
    settings = f"egress:\n  default: [offline]\n  extra_cas: [{certificate.authority}]\n"
    made = Machine(root / "machine", way=way, settings=f"{settings}git:\n  base_url: https://{NAME}/git\n")
    copy_store(base_store, made.data / "images")
    with lab(tmp_path_factory.mktemp("lab"), guest=False) as net, pytest.MonkeyPatch.context() as patch:
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
    made = machine.try_shed("create", "dev", "--image", "base", "--repo", URL,
                            "--secret", "git-token")  # fmt: skip
    said = made.stderr.decode()
    assert made.returncode == 0, said + machine.consoles()
    assert f"reach {NAME}:443, for its repository" in said
    assert machine.shed("exec", "dev", "--", "sh", "-c", "stat -c %U README .git && git status --short").split() == [
        "shed",
        "shed",
    ]
    script = "git log --format=%s; git fetch -q --unshallow && git log --format=%s; cat .git/config ~/.gitconfig"
    done = machine.shed("exec", "dev", "--", "sh", "-c", script)
    assert done.splitlines()[:3] == ["second", "second", "first"], done
    assert PASSWORD not in done
    assert f"url = {URL}" in done
    assert json.loads(machine.shed("--json", "egress", "show", "dev"))["rules"] == [
        f"repository: allow {NAME} ports 443"
    ]
    assert machine.try_shed("exec", "dev", "--", "curl", "-sSm", "20", "https://other.example.com").returncode != 0
    for path in [*machine.data.glob("logs/*"), *machine.data.glob("instances/dev/*.json")]:
        assert PASSWORD.encode() not in path.read_bytes(), path


def test_a_repository_that_cannot_be_had(machine: Machine) -> None:
    """The exit code is 3, the reason and the way out are told, and the shed can be used."""
    made = machine.try_shed("--json", "create", "two", "--image", "base", "--repo", "me/none", "--timeout", "2m")
    answer = json.loads(made.stdout)
    assert made.returncode == 3, made.stderr
    (sentence,) = answer["shed"]["failed"]
    assert "could not read Username" in sentence
    assert f"shed secret set NAME --host {NAME}" in sentence
    assert machine.shed("exec", "two", "--", "ls", "-A") == ""
