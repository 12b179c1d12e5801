"""A user's SSH agent in a real shed: OpenSSH and git of the image, by the relay, to a real server on the host."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.ports import free_port
from support.tools.ssh import Ssh
from support.tools.sshd import USER, Sshd, agent, make_key
from support.vms.machine import Machine
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Place:
    """A user's machine with the shed ``dev``, an agent with one key, and two servers of the host."""

    machine: Machine
    ssh: Ssh
    agent: str
    root: Path
    ours: Sshd
    other: Sshd

    def run(self, command: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the shed, with the agent forwarded."""
        return self.ssh.run("-A", "-o", f"IdentityAgent={self.agent}", "dev@shed", command, code=code)


@pytest.fixture(scope="module")
def place(way: str, base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests."""
    root = tmp_path_factory.mktemp("place")
    copy_store(base_store, root / "data/images")
    line = make_key(root / "user")
    ssh = Ssh(root / "ssh", free_port())
    with ExitStack() as stack:
        ours, other = (stack.enter_context(Sshd(root / name, line)) for name in ("ours", "other"))
        (root / ".ssh").mkdir()
        known = (f"[host.shed.internal]:{server.port} {server.host_key}\n" for server in (ours, other))
        (root / ".ssh/known_hosts").write_text("".join(known))
        address = stack.enter_context(agent(root / "agent", root / "user"))
        hosts = "".join(f"  - '[host.shed.internal]:{each.port} {each.host_key}'\n" for each in (ours, other))
        settings = f"ssh_port: {ssh.port}\ngit:\n extra_known_hosts:\n{hosts}"
        machine = Machine(root, way=way, settings=settings)
        stack.callback(machine.end)
        machine.shed("ssh-key", "add", ssh.public)
        ports = (word for server in (ours, other) for word in ("--host-port", str(server.port)))
        rule = f"host.shed.internal:{ours.port},@git-signing"
        machine.shed("create", "dev", "--image", "base", *ports, "--ssh-agent", rule)
        yield Place(machine, ssh, address, root, ours, other)


def test_the_agent_is_the_users_for_as_long_as_the_connection(place: Place) -> None:
    """Another user of the shed has no access to its socket, and after the connection there is none."""
    command = "ssh-add -l; stat -c %a:%U $SSH_AUTH_SOCK; sudo -u nobody SSH_AUTH_SOCK=$SSH_AUTH_SOCK ssh-add -l 2>&1"
    out = place.run(command, code=2).stdout.decode()
    key = subprocess.run(["ssh-keygen", "-lf", place.root / "user"], capture_output=True, text=True, check=True)
    assert key.stdout.split()[1] in out
    assert "600:shed" in out
    assert "Permission denied" in out
    wait_until(lambda: place.ssh.run("dev@shed", "ls -A /run/shed-ssh").stdout == b"")


def test_git_of_the_image_clones_signs_and_pushes_at_the_named_host(place: Place) -> None:
    """With the user's key, which is not in the shed; at another host, which would let it in, nothing is signed."""
    bare = place.root / "project.git"
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    place.root.chmod(0o755)

    def clone(server: Sshd, folder: str) -> str:
        ssh = server.client(server.port)
        return f"export GIT_SSH_COMMAND='{ssh}'; git clone -q {USER}@host.shed.internal:{bare} {folder} && cd {folder}"

    signing = '-c gpg.format=ssh -c user.signingkey="key::$(ssh-add -L)" -c user.name=a -c user.email=a@example.com'
    commit = f"git {signing} commit -q -S --allow-empty -m first && git push -q origin HEAD:main"
    place.run(f"{clone(place.ours, 'clone')} && {commit}")
    pushed = subprocess.check_output(["git", "-C", bare, "cat-file", "commit", "main"])
    assert b"BEGIN SSH SIGNATURE" in pushed
    refused = place.run(clone(place.other, "stolen"), code=128).stderr
    assert b"Note: shed 'dev' was refused your SSH agent: no host of the rule has the key SHA256:" in refused
    place.machine.shed("update", "dev", "--ssh-agent", "none")
    assert b"it may be used for no host" in place.run(clone(place.ours, "again"), code=128).stderr


def test_a_private_repository_is_cloned_when_a_shed_is_made(place: Place) -> None:
    """With the keys of the agent, where the shed may use them; elsewhere that is told, and one can go on later."""
    work, bare = place.root / "work", place.root / "private.git"
    subprocess.run(["git", "init", "-q", "-b", "main", work], check=True)
    (work / ".shed").mkdir()
    (work / ".shed/provision.yaml").write_text("hooks: {install: pwd >../installed || pwd >~/installed}\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", "-C", work, "add", "."], check=True)
    subprocess.run(["git", "-C", work, *who, "commit", "-q", "-m", "first"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, bare], check=True)
    place.root.chmod(0o755)
    machine = place.machine
    machine.environment["SSH_AUTH_SOCK"] = place.agent
    server, look = f"host.shed.internal:{place.ours.port}", "git log --format=%s; cat ~/installed"
    create = ("--image", "base", "--host-port", str(place.ours.port), "--repo", f"ssh://{USER}@{server}{bare}")
    made = machine.try_shed("create", "mine", *create, "--ssh-agent", server)
    assert made.returncode == 0, made.stderr.decode()
    assert machine.shed("exec", "mine", "--", "sh", "-c", look) == "first\n/workspace\n"
    assert machine.try_shed("provision", "mine", "-A").returncode == 0
    machine.shed("delete", "--force", "mine")
    made = machine.try_shed("create", "later", *create, "--ssh-agent", "github.com")
    assert made.returncode == 3
    assert b"no host of the rule" in made.stderr, made.stderr.decode()
    machine.shed("update", "later", "--ssh-agent", server)
    assert machine.try_shed("provision", "later").returncode == 3
    machine.shed("provision", "later", "-A")
    assert machine.shed("exec", "later", "--", "sh", "-c", look) == "first\n/workspace\n"
    assert machine.shed("exec", "later", "--", "sh", "-c", "ls -A /run/shed-ssh") == ""
