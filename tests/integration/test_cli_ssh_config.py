"""`shed ssh-config` with a real server's SSH front, and OpenSSH reading what it wrote."""

from __future__ import annotations

import copy
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.ports import free_port
from support.servers.running import Running
from support.servers.world import World

SHED = [sys.executable, "-m", "shed.cli.main"]


class Home:
    """A user with a home, and a server with an SSH front and the sheds ``dev`` and ``web``."""

    def __init__(self, root: Path) -> None:
        self.world = World(root / "w")
        (root / "w").mkdir()
        self.port = free_port()
        (root / "w/ssh").write_text(json.dumps({"ssh_port": self.port}))
        self.server = Running(self.world)
        self.path = root / "home"
        for folder in (".shed", ".ssh"):
            (self.path / folder).mkdir(parents=True)
        self.env = {**os.environ, "HOME": str(self.path), "SHED_SERVER": f"unix://{self.server.socket}"}

    def shed(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        done = subprocess.run(
            [*SHED, *words], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done
        return done

    def ssh(self, host: str, command: str) -> str:
        """Run a command by OpenSSH, with the file that the user has; nobody is asked whether a key is right."""
        words = [
            "ssh",
            "-F",
            str(self.path / ".ssh/config"),
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentityAgent=none",
            host,
            command,
        ]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done
        return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The user, for all tests."""
    home = Home(tmp_path_factory.mktemp("host"))
    try:
        for name in ("dev", "web"):
            home.shed("create", name, "--image", "base")
        yield home
    finally:
        home.server.end()
        home.world.kill_machines()


def test_installed_and_used_and_gone(home: Home) -> None:
    """OpenSSH knows each shed by name, and the server by its key; afterwards the user's file is what it was."""
    theirs, ours = home.path / ".ssh/config", home.path / ".shed"
    theirs.write_text("Host *\n    ConnectTimeout 30")
    before = set(ours.iterdir())
    planned = home.shed("ssh-config", "--dry-run").stdout
    assert "Host shed-dev\n" in planned
    assert theirs.read_text() == "Host *\n    ConnectTimeout 30"
    assert set(ours.iterdir()) == before
    assert home.shed("ssh-config", "--install").stdout == f"{theirs} knows shed-dev, shed-web\n"
    assert home.ssh("shed-dev", "echo in the shed") == "in the shed\n"
    assert home.ssh("shed-web", "echo $((6*7))") == "42\n"
    said = json.loads(home.shed("ssh-config", "--uninstall", "--json").stdout)
    assert (said["status"], said["hosts"]) == ("ok", ["shed-dev", "shed-web"])
    assert theirs.read_text() == "Host *\n    ConnectTimeout 30"


def test_it_follows_what_is_made_and_deleted(home: Home) -> None:
    """A shed made later is known to ssh at once, one that is deleted is not any more; without --install nothing is."""
    ours = home.path / ".shed/ssh_config"
    home.shed("create", "before", "--image", "base")
    assert not ours.exists()
    home.shed("ssh-config", "--install")
    home.shed("create", "later", "--image", "base")
    assert home.ssh("shed-later", "echo in the shed") == "in the shed\n"
    home.shed("delete", "later", "before", "--force")
    assert [line for line in ours.read_text().splitlines() if line.startswith("Host ")] == [
        "Host shed-dev",
        "Host shed-web",
    ]
    assert home.ssh("shed-dev", "echo still") == "still\n"
    home.shed("ssh-config", "--uninstall")


def test_the_first_time(home: Home, tmp_path: Path) -> None:
    """In a home where shed was never used the key is made, private, and let in; ten at once make one key."""
    home = copy.copy(home)
    home.path = tmp_path / "new"
    home.path.mkdir()
    home.env = {**home.env, "HOME": str(home.path)}
    with ThreadPoolExecutor(10) as pool:
        keys = [
            json.loads(one)["name"]
            for one in pool.map(lambda _: home.shed("ssh-key", "add", "--json").stdout, range(10))
        ]
    assert len(set(keys)) == 1
    home.shed("ssh-config", "--install")
    private = home.path / ".shed/id_ed25519"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (private, private.parent)] == [0o600, 0o700]
    assert home.ssh("shed-dev", "echo in the shed") == "in the shed\n"
    (found,) = [
        key for key in json.loads(home.shed("ssh-key", "list", "--json").stdout) if key["fingerprint"] == keys[0]
    ]
    assert found["comment"].startswith("shed ")
    assert keys[0] in home.shed("ssh-key", "list").stdout
    home.shed("ssh-key", "remove", keys[0])
    with pytest.raises(AssertionError, match="Permission denied"):
        home.ssh("shed-dev", "true")
    assert "has no key" in home.shed("ssh-key", "remove", keys[0], code=1).stderr
    private.with_suffix(".pub").unlink()
    home.shed("ssh-config", "--install")
    assert home.ssh("shed-dev", "echo again") == "again\n"


def test_what_an_older_version_installed(home: Home) -> None:
    """Is right again when the command is run again; 6aee119 wrote no key into it."""
    ours = home.path / ".shed/ssh_config"
    home.shed("ssh-config", "--install")
    old = "".join(line for line in ours.read_text().splitlines(keepends=True) if "Identit" not in line)
    ours.write_text(old)
    home.shed("ssh-config", "--install")
    assert ours.read_text().count(f"    IdentityFile {home.path}/.shed/id_ed25519\n    IdentitiesOnly yes\n") == 2
    assert home.ssh("shed-web", "echo in") == "in\n"
    home.shed("ssh-config", "--uninstall")


@pytest.mark.parametrize("what", ["folder", "key"])
def test_a_key_that_others_could_take(home: Home, tmp_path: Path, what: str) -> None:
    """Is not used, and not enrolled: one sentence says what to do."""
    home = copy.copy(home)
    home.env = {**home.env, "HOME": str(tmp_path)}
    home.shed("ssh-config", "dev")
    changed = tmp_path / ".shed"
    if what == "key":
        changed = changed / "id_ed25519"
        changed.chmod(0o640)
    else:
        changed.chmod(0o777)
    refused = home.shed("ssh-config", "dev", code=2 if what == "folder" else 1).stderr
    assert f"{changed}" in refused
    assert "\nhint: chmod " in refused


def test_printed(home: Home) -> None:
    """One shed, for people and for machines; the key is pinned so that what is printed works as it stands."""
    text = home.shed("ssh-config", "dev").stdout
    assert text.startswith("Host shed-dev\n    # on local\n    HostName localhost\n")
    config = home.path / "alone"
    config.write_text(text)
    words = ["ssh", "-F", str(config), "-o", "BatchMode=yes", "shed-dev", "echo it works"]
    assert (
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
        == "it works\n"
    )
    (found,) = json.loads(home.shed("ssh-config", "dev", "--json").stdout)
    assert (found["host"], found["port"], found["user"]) == ("shed-dev", home.port, "dev")


def test_one_shed_more(home: Home) -> None:
    """Installing one leaves the others; a whole install forgets those whose sheds are gone."""
    home.shed("ssh-config", "--install", "web")
    ours = home.path / ".shed/ssh_config"
    home.shed("ssh-config", "--install", "dev")
    assert [line for line in ours.read_text().splitlines() if line.startswith("Host")] == [
        "Host shed-dev",
        "Host shed-web",
    ]
    ours.write_text(ours.read_text().replace("web", "old"))
    home.shed("ssh-config", "--install", "-s", home.env["SHED_SERVER"])
    assert "Host shed-old" in ours.read_text()  # it may be another server's
    home.shed("ssh-config", "--install")
    assert "shed-old" not in ours.read_text()
    home.shed("ssh-config", "--uninstall")


def test_a_server_without_a_front(home: Home, tmp_path: Path) -> None:
    """Is told as that, with where to switch it on."""
    world = World(tmp_path)
    server = Running(world)
    try:
        refused = home.shed("-s", f"unix://{server.socket}", "ssh-config", "--json", code=1)
        assert json.loads(refused.stderr)["error"]["code"] == "SSH_OFF"
    finally:
        server.end()


@pytest.mark.parametrize(
    "words", [("--install", "--uninstall"), ("--all", "dev"), ("--uninstall", "dev"), ("--all", "-s", "local")]
)
def test_what_makes_no_sense(home: Home, words: tuple[str, ...]) -> None:
    """Is refused before anything is done."""
    assert home.shed("ssh-config", *words, code=2).stderr.startswith("error: ")


def test_several_servers(home: Home, tmp_path: Path) -> None:
    """The default one's sheds have the plain names, others of the same name their server's too; those of one that is
    down stay.
    """
    other = Home(tmp_path)
    other.shed("create", "dev", "--image", "base")
    config = home.path / ".shed/config.yaml"
    try:
        sockets = {"near": home.server.socket, "far": other.server.socket}
        servers = "".join(f"  {name}: {{url: 'unix://{path}'}}\n" for name, path in sockets.items())
        config.write_text(f"default_server: near\nservers:\n{servers}")
        env = {key: value for key, value in home.env.items() if key != "SHED_SERVER"} | {
            "SHED_RUNTIME_DIR": str(tmp_path / "none")
        }
        home.env, before = env, home.env
        home.shed("ssh-config", "--install")
        assert home.ssh("shed-dev", "echo near") == "near\n"
        assert home.ssh("shed-dev.far", "echo far") == "far\n"
        other.server.end()
        assert "far" in home.shed("ssh-config", "--install").stderr
        assert "Host shed-dev.far\n" in (home.path / ".shed/ssh_config").read_text()
        home.shed("ssh-config", "--uninstall")
        home.env = before
    finally:
        config.unlink()
        if other.server.process.poll() is None:
            other.server.end()
        other.world.kill_machines()
