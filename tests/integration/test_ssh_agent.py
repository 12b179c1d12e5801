"""A forwarded SSH agent, used from a shed: OpenSSH's client, server, agent and git, and programs that are hostile.

The shed is the fake backend's: what runs "there" are processes of this machine that have the agent's socket alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support.tools.agent_messages import (
    FAILURE,
    OTHER_SESSION,
    SIGNED,
    SUCCESS,
    Key,
    bind,
    login_data,
    sign,
    signature_data,
)
from support.tools.ssh_host import Host
from support.tools.sshd import USER, Sshd, agent, make_key

PARAMIKO = """
import paramiko, sys
with paramiko.SSHClient() as client:
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect("127.0.0.1", int(sys.argv[1]), sys.argv[2], look_for_keys=False)
    print(client.exec_command("echo in")[1].read().decode())
"""
"""Another client, which does not tell the agent where it logs in."""
ASKER = Path(__file__).parents[1] / "support/guests/agent_asker.py"


@dataclass
class Place:
    """A host with the shed ``dev``, a user's agent with one key, and servers that let in that key."""

    host: Host
    root: Path
    agent: str
    ours: Sshd
    other: Sshd
    certified: Sshd

    def allow(self, *words: str) -> None:
        """Have the shed use agents for these words alone."""
        body = json.dumps({"ssh_agent": list(words)})
        status, answer = self.host.server.request("POST", "/api/sheds/dev/update", body)
        assert status == 200, answer

    def run(self, command: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the shed, with the agent forwarded."""
        return self.host.ssh.run("-A", "-o", f"IdentityAgent={self.agent}", "dev@shed", command, code=code)

    def ask(self, *messages: bytes) -> list[int | None]:
        """Have a program in the shed say this to the agent; return the kinds of the answers, None where it hung up."""
        words = [sys.executable, str(ASKER), *(message.hex() for message in messages)]
        lines = self.run(" ".join(words)).stdout.decode().split()
        return [None if line == "closed" else int(line[:2], 16) for line in lines]

    @property
    def user(self) -> Key:
        """The key that the agent has."""
        return Key(self.root / "user")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests; each says first what is allowed."""
    root = tmp_path_factory.mktemp("place")
    for folder in ("home/.ssh", "host"):
        (root / folder).mkdir(parents=True)
    line, authority = make_key(root / "user"), make_key(root / "authority")
    with contextlib.ExitStack() as stack:
        ours, other = (stack.enter_context(Sshd(root / name, line)) for name in ("ours", "other"))
        certified = Sshd(root / "certified", line, authority=root / "authority", name="ca.example.com")
        stack.enter_context(certified)
        (root / "home/.ssh/known_hosts").write_text(
            f"git.example.com {ours.host_key}\n"
            f"[other.example.com]:2222 {other.host_key}\n"
            f"@cert-authority *.example.com {authority}\n"
        )
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("HOME", str(root / "home"))
        address = stack.enter_context(agent(root / "agent", root / "user"))
        host = Host(root / "host")
        stack.callback(host.end)
        host.create("dev")
        yield Place(host, root, address, ours, other, certified)


def test_without_a_rule_the_agent_is_used_for_nothing(place: Place) -> None:
    """Not even its keys are listed; who forwards it is told what would allow it, once."""
    place.allow()
    login = place.ours.login("echo in")
    done = place.run(f"ssh-add -l; {login}; {login}", code=255)
    assert b"in\n" not in done.stdout
    assert done.stderr.count(b"Permission denied (publickey") == 2
    told = b"Note: shed 'dev' was refused your SSH agent: it may be used for no host; to allow it: "
    assert done.stderr.count(told + b"shed update dev --ssh-agent HOST\n") == 1


def test_a_host_of_the_rule_is_logged_in_at(place: Place) -> None:
    """And another one, which lets in the same key, is not; a change of the rule holds at once."""
    place.allow("git.example.com")
    assert place.run(place.ours.login("echo in")).stdout == b"in\n"
    done = place.run(place.other.login("echo in"), code=255)
    assert done.stdout == b""
    assert b"no host of the rule has the key SHA256:" in done.stderr
    assert b"shed update dev --ssh-agent git.example.com,HOST\n" in done.stderr
    place.allow("git.example.com", "other.example.com:2222")
    assert place.run(f"{place.other.login('echo in')} && {place.ours.login('echo in')}").stdout == b"in\nin\n"


def test_a_rule_may_name_the_user(place: Place) -> None:
    """Who logs in there as another one is told what to name."""
    place.allow("somebody@git.example.com")
    done = place.run(place.ours.login("echo in"), code=255)
    told = b"as another user; to allow it: shed update dev --ssh-agent somebody@git.example.com,USER@git.example.com\n"
    assert told in done.stderr
    place.allow(f"{USER}@git.example.com")
    assert place.run(place.ours.login("echo in")).stdout == b"in\n"


def test_a_host_with_a_certificate(place: Place) -> None:
    """By its name in the certificate, of an authority that known_hosts names."""
    place.allow("ca.example.com")
    assert place.run(place.certified.login("echo in")).stdout == b"in\n"
    place.run(place.ours.login("echo in"), code=255)
    place.allow("not-that.example.com")
    place.run(place.certified.login("echo in"), code=255)


def test_a_host_that_the_server_does_not_know(place: Place) -> None:
    """The rule is kept, and it is told that it allows nothing yet; a name that is none is refused."""
    place.allow("unknown.example.org")
    done = place.run(place.ours.login("echo in"), code=255)
    assert b"the server knows no key of unknown.example.org: as its user, on its machine, run once: ssh" in done.stderr
    body = json.dumps({"ssh_agent": ["git.example.com;id"]})
    status, answer = place.host.server.request("POST", "/api/sheds/dev/update", body)
    assert status == 400
    assert b"is no host for an SSH agent" in answer


def test_any_host_by_name(place: Place) -> None:
    """``*`` allows logins anywhere, also by programs that do not say where, and nothing but logins."""
    place.allow("*")
    assert place.run(place.other.login("echo in")).stdout == b"in\n"
    user = place.user
    assert place.ask(sign(user, login_data(user))) == [SIGNED]
    assert place.ask(sign(user, b"anything"), sign(user, signature_data(b"git"))) == [FAILURE, FAILURE]


def test_a_client_that_does_not_say_where_it_logs_in(place: Place) -> None:
    """paramiko, with the agent's key: a sentence says why not; any host is another matter."""
    program = f"{sys.executable} -c {shlex.quote(PARAMIKO)} {place.ours.port} {USER}"
    place.allow("git.example.com")
    done = place.run(program, code=1)
    assert b"the program does not say which host it logs in at, as OpenSSH does from version 8.9 on\n" in done.stderr
    place.allow("*")
    assert place.run(program).stdout == b"in\n\n"


def test_a_key_that_has_destinations_of_its_own(place: Place) -> None:
    """``ssh-add -h``: the agent is told of the hosts, and holds to what it was told when the key was added."""
    place.allow("*", "git.example.com", "other.example.com:2222")
    front = f"[127.0.0.1]:{place.host.ssh.port}"
    known = (str(place.host.ssh.folder / "known_hosts"), str(place.root / "home/.ssh/known_hosts"))
    place.run("true")  # the front's key is known from then on
    with agent(place.root / "constrained") as address:
        way = ["-H", known[0], "-H", known[1], "-h", front, "-h", f"{front}>git.example.com"]
        env = {**os.environ, "SSH_AUTH_SOCK": address}
        subprocess.run(["ssh-add", "-q", *way, place.root / "user"], env=env, check=True)
        constrained = replace(place, agent=address)
        assert constrained.run(place.ours.login("echo in")).stdout == b"in\n"
        assert constrained.run(place.other.login("echo in"), code=255).stdout == b""


def test_commits_are_signed_when_that_is_named(place: Place) -> None:
    """By git itself; and no file, which could be a release."""
    place.allow("git.example.com")
    setup = (
        f"cd {place.root} && rm -rf signed && git init -q signed && cd signed && "
        f"git config user.signingkey 'key::{place.user.line}' && git config gpg.format ssh && "
        "git config user.name a && git config user.email a@example.com"
    )
    commit = f"{setup} && git commit -q -S --allow-empty -m first && git cat-file commit HEAD"
    done = place.run(commit, code=128)
    assert b"it signs no commits; to allow it: shed update dev --ssh-agent git.example.com,@git-signing" in done.stderr
    place.allow("@git-signing")
    assert b"BEGIN SSH SIGNATURE" in place.run(commit).stdout
    done = place.run(f"echo x | ssh-keygen -Y sign -n file -f {place.root}/user.pub", code=255)
    assert b"it signs logins and git's commits, and no other data" in done.stderr


def test_git_over_ssh(place: Place) -> None:
    """Clones and pushes at the host of the rule, and nowhere else."""
    place.allow("git.example.com")
    bare = place.root / "project.git"
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)

    def command(server: Sshd, folder: str) -> str:
        return (
            f"cd {place.root} && rm -rf {folder} && export GIT_SSH_COMMAND='{server.client()}' && "
            f"git clone -q {USER}@127.0.0.1:{bare} {folder} && cd {folder} && "
            "git -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m first && "
            "git push -q origin HEAD:main"
        )

    place.run(command(place.ours, "clone"))
    assert subprocess.check_output(["git", "-C", bare, "log", "--format=%s", "main"]) == b"first\n"
    assert b"no host of the rule has the key" in place.run(command(place.other, "stolen"), code=128).stderr


def test_what_a_hostile_program_asks_for(place: Place) -> None:
    """Whatever it says, it gets no signature that is good for another host; the same, said honestly, is signed."""
    place.allow("git.example.com")
    user, ours, other = place.user, Key(place.ours.private_key), Key(place.other.private_key)
    login = sign(user, login_data(user))
    bound = sign(user, login_data(user, host=ours))
    assert place.ask(bind(ours), login, bound, bound) == [SUCCESS, SIGNED, SIGNED, SIGNED]
    assert place.ask(login) == [FAILURE]  # of no host
    assert place.ask(bind(other), login) == [SUCCESS, FAILURE]  # of a host that is not named
    assert place.ask(bind(ours, signer=other), login) == [FAILURE, FAILURE]  # a host that takes no part
    elsewhere = sign(user, login_data(user, OTHER_SESSION))
    assert place.ask(bind(ours), elsewhere, login) == [SUCCESS, FAILURE, SIGNED]  # a replay, for another session
    assert place.ask(bind(ours), bind(other, OTHER_SESSION), elsewhere) == [SUCCESS, FAILURE, FAILURE]
    assert place.ask(bind(other), bind(ours), login) == [SUCCESS, FAILURE, FAILURE]
    assert place.ask(bind(ours, forwards=1), login) == [FAILURE, FAILURE]
    assert place.ask(bind(ours), sign(user, login_data(user, host=other))) == [SUCCESS, FAILURE]
    assert place.ask(bind(ours), sign(ours, login_data(user))) == [SUCCESS, FAILURE]  # signed by another key
    for data in (b"", b"x", bytes(32), login_data(user) + b"x", login_data(user)[:-1], signature_data(b"git")):
        assert place.ask(bind(ours), sign(user, data)) == [SUCCESS, FAILURE], data


def test_the_agent_itself_stays_as_it_is(place: Place) -> None:
    """No keys are added, removed, locked or read from a card; no message is too long; after nonsense it goes on."""
    place.allow("*", "@git-signing")
    before = place.run("ssh-add -l").stdout
    make_key(place.root / "evil")
    refused = place.run(f"ssh-add {place.root}/evil; ssh-add -D; ssh-add -X </dev/null; ssh-add -l")
    assert refused.stdout == before
    kinds = [bytes([kind]) for kind in range(256) if kind not in {11, 13, 27}]
    assert place.ask(*kinds, bytes([11])) == [FAILURE] * len(kinds) + [12]
    long = place.run(
        f"{sys.executable} -c 'import os, socket; s = socket.socket(socket.AF_UNIX); "
        's.connect(os.environ["SSH_AUTH_SOCK"]); s.sendall(bytes([255] * 4)); print(s.recv(9))\''
    )
    assert long.stdout == b"b''\n"


def test_an_agent_that_hangs_up(place: Place) -> None:
    """Ends the connection of who asks it; what needs no agent is still answered."""
    place.allow("*")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.root / "mute"))
        listener.listen()

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            assert replace(place, agent=str(place.root / "mute")).ask(bytes([17]), bytes([11])) == [FAILURE, None]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_an_agent_that_left_is_asked_again_and_again(tmp_path: Path) -> None:
    """Each time the connection is ended, and none of them takes up room for good."""
    make_key(tmp_path / "user")
    with agent(tmp_path / "agent", tmp_path / "user") as address:
        host = Host(tmp_path, limits={"MOST_ARRIVING": 2})
        try:
            host.create("dev")
            status, _ = host.server.request("POST", "/api/sheds/dev/update", json.dumps({"ssh_agent": ["*"]}))
            assert status == 200
            ask = f"{sys.executable} {ASKER} 0b"
            command = f"{ask}; mv {address} {address}-gone; {ask}; {ask}; {ask}; mv {address}-gone {address}; {ask}"
            said = host.ssh.run("-A", "-o", f"IdentityAgent={address}", "dev@shed", command).stdout.decode().split()
            assert [line[:2] for line in said] == ["0c", "cl", "cl", "cl", "0c"]
        finally:
            host.end()


def test_a_shed_asks_in_turn(tmp_path: Path) -> None:
    """As often as it likes at first, and then slowly: the answer to one question more is not there yet."""
    make_key(tmp_path / "user")
    program = (
        "import os, select, socket; s = socket.socket(socket.AF_UNIX); s.connect(os.environ['SSH_AUTH_SOCK']); "
        "s.sendall(b'\\0\\0\\0\\1\\x11' * 6); print(s.recv(25, socket.MSG_WAITALL).hex()); "
        "print(select.select([s], [], [], 1)[0])"
    )
    with agent(tmp_path / "agent", tmp_path / "user") as address:
        host = Host(tmp_path, limits={"AGENT_BURST": 5, "AGENT_PER_SECOND": 0.001})
        try:
            host.create("dev")
            words = ("-A", "-o", f"IdentityAgent={address}", "dev@shed", f'{sys.executable} -c "{program}"')
            assert host.ssh.run(*words).stdout.decode().split() == ["0000000105" * 5, "[]"]
        finally:
            host.end()


def test_uses_are_written_down(place: Place) -> None:
    """For which host, once for each client; what was refused is an event."""
    place.allow("git.example.com")
    place.run(f"{place.ours.login('true')}; {place.ours.login('true')}; {place.other.login('true')}", code=255)
    log = (place.host.world.paths.data / "logs/audit.log").read_text()
    (login,) = [line for line in log.splitlines() if "ssh agent git.example.com" in line][-1:]
    assert json.loads(login)["shed"] == "dev"
    events = place.host.get("/api/events?kind=agent.refused&tail=1")["events"]
    assert isinstance(events, list)
    assert "no host of the rule has the key" in events[0]["message"]
