"""The script that clones a repository in a shed, by a real git from a real server, and from hostile ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.config.git import FORGES
from shed.sheds import clone, dotfiles
from support.ports import free_port
from support.registries.certificates import make_certificate
from support.servers import tlsorigin
from support.servers.tlsorigin import PASSWORD

pytestmark = pytest.mark.timeout(120)
PERSON = ("-c", "user.name=a", "-c", "user.email=a@example.com")


class Origin:
    """A git server on loopback; `git` makes repositories there."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        made = make_certificate(root / "certificate", "localhost")
        self.authority = made.authority
        (root / "both.pem").write_bytes(made.chain.read_bytes() + made.key.read_bytes())

    def url(self, name: str, way: str = "open") -> str:
        return f"https://localhost:{self.port}/{way}/{name}"

    def git(self, name: str, *words: str) -> str:
        """Run git in a repository."""
        place = self.root / "git" / name
        place.mkdir(parents=True, exist_ok=True)
        command = ["git", "-C", str(place), *PERSON, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def make(self, name: str, **files: str) -> str:
        """Make a repository of two commits; return the id of the first one."""
        self.git(name, "init", "-q", "-b", "main")
        self.git(name, "commit", "-q", "--allow-empty", "-m", "first")
        first = self.git(name, "rev-parse", "HEAD")
        for path, text in {"README": "hello\n", **files}.items():
            (self.root / "git" / name / path.replace("__", ".")).write_text(text)
        self.git(name, "add", "-A")
        self.git(name, "commit", "-q", "-m", "second")
        return first


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """A git server with the repository ``work``."""
    made = Origin(tmp_path_factory.mktemp("origin"))
    made.make("work")
    command = [sys.executable, "-u", tlsorigin.__file__, str(made.root), str(made.port), str(made.root / "both.pem")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield made
        server.kill()


class Guest:
    """A user's home and workspace."""

    def __init__(self, root: Path, origin: Origin) -> None:
        self.home, self.place, self.origin = root / "home", root / "workspace", origin
        self.home.mkdir()
        self.place.mkdir()

    def clone(self, url: str, *, path: str | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        known = {"PLACE": str(self.place), "URL": url, "REF": "", "COMMIT": "", "DEPTH": "1", "SECRET": ""}
        known |= {"ORIGIN": f"localhost:{self.origin.port}", "KNOWN_HOSTS": ""} | settings
        env = {f"REPO_{name}": value for name, value in known.items()}
        env |= {
            "HOME": str(self.home),
            "PATH": path or os.environ["PATH"],
            "GIT_SSL_CAINFO": str(self.origin.authority),
        }
        env |= {"GIT_CONFIG_NOSYSTEM": "1", "TOKEN": PASSWORD}
        return subprocess.run(["/bin/sh", "-c", clone._SCRIPT], env=env, capture_output=True, text=True, check=False)

    def git(self, *words: str) -> str:
        """Run git in the workspace."""
        env = {**os.environ, "HOME": str(self.home)}
        done = subprocess.run(
            ["git", "-C", str(self.place), *words], capture_output=True, text=True, check=True, env=env
        )
        return done.stdout.strip()


@pytest.fixture
def guest(tmp_path: Path, origin: Origin) -> Guest:
    """A user without anything."""
    return Guest(tmp_path, origin)


def test_a_clone(guest: Guest, origin: Origin) -> None:
    """Shallow, on the branch that the server says, with its files."""
    done = guest.clone(origin.url("work"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (guest.place / "README").read_text() == "hello\n"
    assert guest.git("log", "--format=%s") == "second"
    assert guest.git("branch", "--show-current") == "main"


@pytest.mark.parametrize("depth", ["1", "0"])
def test_a_branch_a_tag_and_a_commit(guest: Guest, origin: Origin, tmp_path: Path, depth: str) -> None:
    """Each is what is checked out; with the whole history when that is asked for."""
    name = f"refs{depth}"
    first = origin.make(name)
    origin.git(name, "tag", "v1", first)
    origin.git(name, "branch", "old/one", first)
    for ref, commit in (("v1", ""), ("old/one", ""), (first, first)):
        place = guest.place = tmp_path / f"place-{len(ref)}"
        place.mkdir()
        done = guest.clone(origin.url(name), REF=ref, COMMIT=commit, DEPTH=depth)
        assert done.returncode == 0, done.stderr
        assert guest.git("rev-parse", "HEAD") == first


def test_a_private_repository(guest: Guest, origin: Origin) -> None:
    """The secret's variable is asked only where a password is wanted; its value is in no file."""
    refused = guest.clone(origin.url("work", "git"))
    assert refused.returncode == 128
    assert "could not read Username" in refused.stderr
    assert list(guest.place.iterdir()) == []
    done = guest.clone(origin.url("work", "git"), SECRET="TOKEN")
    assert done.returncode == 0, done.stderr
    assert not [path for path in guest.home.rglob("*") if path.is_file() and PASSWORD in path.read_text()]
    assert PASSWORD not in (guest.place / ".git/config").read_text()
    assert PASSWORD not in done.stdout + done.stderr


def test_submodules(guest: Guest, origin: Origin) -> None:
    """They are there, with their own; one that cannot be had is told, and the rest stays."""
    origin.make("leaf")
    origin.make("outer")
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add")
    origin.git("outer", *add, str(origin.root / "git/leaf"), "leaf")
    (origin.root / "git/outer/.gitmodules").write_text('[submodule "leaf"]\n\tpath = leaf\n\turl = ../leaf\n')
    origin.git("outer", "commit", "-q", "-a", "-m", "third")
    done = guest.clone(origin.url("outer"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (guest.place / "leaf/README").exists()


@pytest.mark.parametrize(
    "url", ["ext::sh -c 'touch {trap}' x", "file://{root}/git/work", "{root}/git/work", "-u./trap"]
)
def test_a_hostile_submodule(guest: Guest, origin: Origin, tmp_path: Path, url: str) -> None:
    """It runs nothing, reads no other folder, and is told; the repository stays."""
    trap, name = tmp_path / "trap", f"hostile{abs(hash(url))}"
    origin.make(name)
    modules = origin.root / "git" / name / ".gitmodules"
    modules.write_text(f'[submodule "x"]\n\tpath = x\n\turl = {url.format(trap=trap, root=origin.root)}\n')
    commit = origin.git("work", "rev-parse", "HEAD")
    origin.git(name, "update-index", "--add", "--cacheinfo", f"160000,{commit},x")
    origin.git(name, "add", ".gitmodules")
    origin.git(name, "commit", "-q", "-m", "trap")
    done = guest.clone(origin.url(name))
    assert done.returncode == 0, done.stderr
    assert not trap.exists()
    assert not (guest.place / "x/README").exists()
    assert (guest.place / "README").exists()
    assert done.stdout == "submodules\n", done.stderr


def test_files_in_lfs(guest: Guest, origin: Origin, tmp_path: Path) -> None:
    """Without git-lfs that is told; with it they are fetched, and what cannot be fetched is told."""
    origin.make("large", __gitattributes="*.bin filter=lfs diff=lfs merge=lfs\n")
    done = guest.clone(origin.url("large"))
    assert (done.returncode, done.stdout) == (0, "no-lfs\n"), done.stderr
    tools = tmp_path / "tools"
    tools.mkdir()
    lfs = tools / "git-lfs"
    lfs.write_text(f'#!/bin/sh\necho "$*" >>{tools}/said\n[ "$1" != pull ]\n')
    lfs.chmod(0o755)
    guest.place = tmp_path / "second"
    guest.place.mkdir()
    done = guest.clone(origin.url("large"), path=f"{tools}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (0, "lfs\n"), done.stderr
    assert (tools / "said").read_text().splitlines() == ["version", "install", "pull"]


def test_what_there_is_in_the_workspace_stays(guest: Guest, origin: Origin) -> None:
    """Nothing is cloned over files of the image."""
    (guest.place / "mine").write_text("x")
    assert guest.clone(origin.url("work")).returncode == 91
    assert [path.name for path in guest.place.iterdir()] == ["mine"]


def test_an_image_without_git(guest: Guest, tmp_path: Path) -> None:
    """It is told apart from a git that fails."""
    assert guest.clone("https://localhost/x", path=str(tmp_path)).returncode == 90


@pytest.mark.parametrize("commit", ["", "0" * 40])
def test_what_is_not_there(guest: Guest, origin: Origin, commit: str) -> None:
    """A repository or a commit that is missing leaves an empty workspace."""
    done = guest.clone(origin.url("work" if commit else "none"), COMMIT=commit)
    assert done.returncode == 128, done.stderr
    assert list(guest.place.iterdir()) == []


def test_keys_of_hosts(guest: Guest) -> None:
    """They are added to what is known, once, in a folder that others cannot read, though the clone then fails."""
    (guest.home / ".ssh").mkdir(mode=0o700)
    known = guest.home / ".ssh/known_hosts"
    known.write_text(f"mine ssh-ed25519 AAAA\n{FORGES[0]}\n")
    for _ in range(2):
        assert guest.clone("ssh://git@localhost:1/x", KNOWN_HOSTS="\n".join(FORGES)).returncode
        assert known.read_text().splitlines() == ["mine ssh-ed25519 AAAA", *FORGES]


def install(guest: Guest) -> subprocess.CompletedProcess[str]:
    """Run the script that installs dotfiles."""
    env = {"HOME": str(guest.home), "PATH": os.environ["PATH"]}
    return subprocess.run(["/bin/sh", "-c", dotfiles._INSTALL], env=env, capture_output=True, text=True, check=False)


def test_dotfiles_are_linked(guest: Guest, origin: Origin) -> None:
    """What begins with a dot, into folders that are there; a file that was there is kept beside, and a second time
    changes nothing.
    """
    git = [".gitignore", ".github"]
    origin.make("dots", __bashrc="theirs\n", __profile="", __gitignore="", __github="", Makefile="")
    (origin.root / "git/dots/.config/app").mkdir(parents=True)
    (origin.root / "git/dots/.config/app/rc").write_text("rc")
    origin.git("dots", "add", "-A")
    origin.git("dots", "commit", "-q", "-m", "third")
    (guest.home / ".bashrc").write_text("mine\n")
    (guest.home / ".config/other").mkdir(parents=True)
    done = guest.clone(origin.url("dots"), PLACE=dotfiles.PLACE)
    assert done.returncode == 0, done.stderr
    for _ in range(2):
        done = install(guest)
        assert (done.returncode, done.stderr) == (0, "")
        assert (guest.home / ".bashrc").read_text() == "theirs\n"
        assert (guest.home / ".bashrc.before-dotfiles").read_text() == "mine\n"
        assert sorted(path.name for path in (guest.home / ".config").iterdir()) == ["app", "other"]
        assert (guest.home / ".config/app/rc").read_text() == "rc"
        assert not [path for path in guest.home.iterdir() if path.name in [*git, "Makefile"]]


@pytest.mark.parametrize(
    ("file", "text", "mode", "says"),
    [
        ("install.sh", "#!/bin/sh\necho $0 $PWD", 0o755, "./install.sh HOME/.dotfiles\n"),
        ("bootstrap", "#!/bin/sh -e\necho $0; false; echo on", 0o644, "./bootstrap\n"),
        ("script/setup", "echo $0", 0o644, "./script/setup\n"),
    ],
)
def test_dotfiles_install_themselves(guest: Guest, file: str, text: str, mode: int, says: str) -> None:
    """By the first file that has one of the names, by what its first line says; then nothing is linked."""
    place = guest.home / ".dotfiles"
    (place / "script").mkdir(parents=True)
    (place / ".bashrc").write_text("theirs")
    (place / "setup.sh").mkdir()  # a folder is no program
    (place / file).write_text(text)
    (place / file).chmod(mode)
    done = install(guest)
    assert done.stdout == says.replace("HOME", str(guest.home)), done.stderr
    assert done.returncode == (1 if "false" in text else 0)
    assert not (guest.home / ".bashrc").exists()
