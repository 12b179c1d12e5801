"""The host's own git, at work between a guest's calls: what it makes completes nothing for the guest.

Each of these ran a program on the host, or wrote where it must not, on the commit before this file came; the last one
could be raced.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from shed.backends.guard.settings import MADE
from support.guests.guest_git import on_host
from support.guests.held import REFUSED, Held


class Scene:
    """A share with a repository of the host's, a guest, and a mark that a program of the guest's would leave."""

    def __init__(self, held: Held, root: Path) -> None:
        self.held, self.share, self.root = held, held.share, root
        self.mark = root / "ran"
        self.git("init", "-q", "-b", "main", ".")
        (self.share / "file").write_text("words\n")
        self.git("add", ".")
        self.git("commit", "-qm", "first")
        self.evil = (
            f'[core]\n\trepositoryformatversion = 0\n\tworktree = {self.share}\n\tfsmonitor = "touch '
            f'{self.mark}; false"\n'
        )

    def git(self, *words: str, where: str = ".") -> str:
        return on_host(self.share / where, *words, home=self.root)

    def guest(self, what: str) -> str:
        return self.held.does(what)

    def refused(self, *attacks: str) -> None:
        assert {attack: self.guest(attack) for attack in attacks} == dict.fromkeys(attacks, REFUSED)

    def works(self, *calls: str) -> None:
        assert {call: self.guest(call) for call in calls} == dict.fromkeys(calls, "works")

    def nothing_runs(self, *places: str) -> None:
        for place in places:
            self.git("status", where=place)
            assert not self.mark.exists(), place

    def settings(self, folder: str, text: bytes) -> str:
        """Have the guest write settings as git does."""
        self.works(f"write({folder!r}, 'config.lock', {text!r}, how=lock)")
        answer = self.guest(f"move({folder!r}, 'config.lock', {folder!r}, 'config')")
        if answer != "works":
            self.works(f"os.unlink('config.lock', dir_fd=at({folder!r}))")
        return answer

    def index(self, data: bytes) -> str:
        """Have the guest write an index as git does; it comes by way of a file, as it is larger than a line."""
        (self.share / "data").write_bytes(data)
        self.works(
            "write('.git', 'index.lock', open(os.open('data', os.O_RDONLY, dir_fd=shared), 'rb').read(), how=lock)"
        )
        answer = self.guest("move('.git', 'index.lock', '.git', 'index')")
        if answer != "works":
            self.works("os.unlink('index.lock', dir_fd=at('.git'))")
        return answer


def test_a_fetch_makes_no_repository_of_branches(tmp_path: Path) -> None:
    """Branches `objects/…` and `refs/…` make a whole git directory of remote ones; it gets no settings, and nothing
    leads there.
    """
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        it.git("clone", "-q", "--bare", ".", str(tmp_path / "up"))
        it.git("remote", "add", "origin", str(tmp_path / "up"))
        settings = (it.share / ".git/config").read_bytes()
        assert it.settings(".git", settings + b"\tfetch = +refs/heads/*:refs/remotes/origin/objects/*\n") == REFUSED
        for branch in ("objects/main", "refs/main", "HEAD"):  # what a hostile remote has
            on_host(tmp_path / "up", "update-ref", f"refs/heads/{branch}", "main", home=tmp_path)
        it.git("fetch", "-q")
        where = ".git/refs/remotes/origin"
        assert {"objects", "refs", "HEAD"} <= {path.name for path in (it.share / where).iterdir()}
        it.works("make('.', 'sub')")
        it.refused(
            f"write({where!r}, 'config', {it.evil.encode()!r})",
            f"write({where!r}, 'config.worktree')",
            f"write({where!r}, 'commondir', b'../../../../doc')",
            f"os.symlink('../../../../x', 'hooks', dir_fd=at({where!r}))",
            f"write('sub', '.git', b'gitdir: ../{where}\\n')",
        )
        assert it.settings(where, it.evil.encode()) == REFUSED
        it.nothing_runs(".", "sub", where)


def test_a_checkout_makes_no_repository_to_be_led_to(tmp_path: Path) -> None:
    """A branch of the guest's has a whole bare repository in it, and the host checks it out: the guest cannot lead git
    there.
    """
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        store = it.share / "doc/store"
        for folder in ("objects", "refs"):
            (store / folder).mkdir(parents=True)
            (store / folder / "k").touch()
        (store / "HEAD").write_text("ref: refs/heads/main\n")
        (store / "config").write_text(it.evil)
        it.git("switch", "-qc", "feature")
        it.git("add", ".")
        it.git("commit", "-qm", "feature")
        it.git("switch", "-q", "main")
        it.works("make('.', 'sub')", "make('.git', 'old')", "write('.', 'words', b'gitdir: ../doc/store\\n')")
        it.git("switch", "-q", "feature")
        assert store.exists()
        ways = (
            "write('sub', '.git', b'gitdir: ../doc/store\\n')",
            "move('.', 'words', 'sub', '.git')",
            "os.link('words', '.git', src_dir_fd=shared, dst_dir_fd=at('sub'))",
            "os.symlink('../doc/store', '.git', dir_fd=at('sub'))",
            "os.symlink('../doc', 'modules', dir_fd=at('.git'))",
            "move('doc', 'store', 'sub', '.git')",
            "move('doc', 'store', '.git/old', 'm')",
        )
        it.refused(*ways)
        it.nothing_runs(".", "sub")
        shutil.rmtree(it.share / ".git")  # as the guest may
        it.refused("write('.', '.git', b'gitdir: doc/store\\n')", "move('doc', 'store', '.', '.git')")
        it.nothing_runs(".", "sub")


def test_a_git_file_of_the_hosts_is_not_changed(tmp_path: Path) -> None:
    """It leads to a submodule or the repository of a work tree."""
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        it.git("worktree", "add", "-q", "tree")
        it.works("make('.', 'sub')")
        it.refused(
            "write('tree', '.git', b'gitdir: ../doc\\n', how=os.O_WRONLY | os.O_TRUNC)",
            "move('tree', '.git', 'tree', 'x')",
            "os.link('.git', 'x', src_dir_fd=at('tree'), dst_dir_fd=at('tree'))",
        )


def evil_index(index: Path, path: bytes) -> bytes:
    """Return an index that has a program at `path`, which is as long as ``xgit/hooks/post-checkout``."""
    real = b"xgit/hooks/post-checkout"
    data = index.read_bytes()[:-20]
    assert data.count(real) == 1
    assert len(path) == len(real)
    data = data.replace(real, path)
    tree = data.find(b"TREE")
    data = data[: tree if tree > 0 else None]
    return data + hashlib.sha1(data, usedforsecurity=False).digest()


@pytest.mark.parametrize(
    "path",
    [
        b".git/hooks/post-checkout",
        b".GIT/hooks/post-checkout",
        b"sub/.git/hooks/post-chec",
        b"../x/hooks/post-checkout",
        b"/xgi/hooks/post-checkout",
    ],
)
@pytest.mark.parametrize("version", [2, 3, 4])
def test_an_index_leads_only_to_the_work_tree(tmp_path: Path, path: bytes, version: int) -> None:
    """`git restore .` writes what the index says to where it says, also to `.git/hooks`; the guest cannot have it say
    that.
    """
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        hook = it.share / "xgit/hooks/post-checkout"
        hook.parent.mkdir(parents=True)
        hook.write_text(f"#!/bin/sh\ntouch {it.mark}\n")
        hook.chmod(0o755)
        it.git("update-index", "--index-version", str(version))
        it.git("add", str(hook))
        if version == 3:
            (it.share / "later").touch()
            it.git("add", "-N", "later")
        index = it.share / ".git/index"
        good = index.read_bytes()
        assert good[7] == version
        evil = evil_index(index, path)
        assert it.index(evil) == REFUSED
        it.refused(
            "write('.git', 'index', b'', how=os.O_WRONLY)",
            "move('.', 'data', '.git', 'index')",
            "move('.git', 'index', '.git', 'x')",
            "os.link('index', 'x', src_dir_fd=at('.git'), dst_dir_fd=at('.git'))",
        )
        shutil.rmtree(it.share / "xgit")
        it.git("restore", ".")
        assert hook.exists()
        assert not (it.share / ".git/hooks/post-checkout").exists()
        assert it.index(good) == "works"
        assert index.read_bytes() == good


def test_git_copies_no_file_of_the_hosts_for_the_guest(tmp_path: Path) -> None:
    """`git commit` keeps each file that `MERGE_RR` names, when there is a folder for it: a way to read whatever the
    user can.
    """
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        secret, key = tmp_path / "secret", "1" * 40
        secret.write_text("the user's\n")
        it.works(
            "make('.git', 'rr-cache')", f"make('.git/rr-cache', {key!r})", f"write('.git/rr-cache/{key}', 'preimage')"
        )
        it.refused(
            f"write('.git', 'MERGE_RR', b'{key}\\t{secret}\\0')",
            "write('.git', 'MERGE_RR')",
            "move('.git/rr-cache', 'x', '.git', 'MERGE_RR')",
        )
        it.works(f"write('.git', 'MERGE_RR.lock', b'{key}\\t{secret}\\0', how=lock)")
        it.refused("move('.git', 'MERGE_RR.lock', '.git', 'MERGE_RR')")
        it.works("os.unlink('MERGE_RR.lock', dir_fd=at('.git'))", "write('.git', 'MERGE_RR.lock', how=lock)")
        it.works("move('.git', 'MERGE_RR.lock', '.git', 'MERGE_RR')")
        it.git("commit", "--allow-empty", "-m", "second")
        assert not (it.share / f".git/rr-cache/{key}/postimage").exists()


def test_git_writes_no_file_of_the_hosts_for_the_guest(tmp_path: Path) -> None:
    """Messages and logs are written in place: by a link in the repository, into a file elsewhere, as lines that the
    guest chose.
    """
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        profile = tmp_path / "profile"
        profile.write_text("the user's\n")
        (it.share / ".git/logs/HEAD").unlink()
        (it.share / ".git/COMMIT_EDITMSG").unlink()
        it.refused(
            f"os.symlink({str(profile)!r}, 'HEAD', dir_fd=at('.git/logs'))",
            f"os.symlink({str(profile)!r}, 'COMMIT_EDITMSG', dir_fd=at('.git'))",
        )
        it.works(f"os.symlink({str(profile)!r}, 'link', dir_fd=shared)")
        it.refused(
            "move('.', 'link', '.git/logs', 'HEAD')",
            "os.link('link', 'HEAD', src_dir_fd=shared, dst_dir_fd=at('.git/logs'), follow_symlinks=False)",
        )
        it.git("commit", "--allow-empty", "-m", "second")
        assert profile.read_text() == "the user's\n"


def test_the_host_pushes_to_no_folder_of_the_guests(tmp_path: Path) -> None:
    """A push into a repository runs its hooks: a remote of the guest's is none of the host's folders, and no branch
    goes to it.
    """
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        it.git("clone", "-q", "--bare", ".", str(tmp_path / "up"))
        it.git("remote", "add", "origin", str(tmp_path / "up"))
        it.git("push", "-q", "-u", "origin", "main")
        it.git("init", "-q", "--bare", "evil")
        hook = it.share / "evil/hooks/pre-receive"
        hook.write_text(f"#!/bin/sh\ntouch {it.mark}\n")
        hook.chmod(0o755)
        settings = (it.share / ".git/config").read_bytes()
        for more in (
            b'[branch "main"]\n\tpushremote = evil\n',
            b'[branch "main"]\n\tremote = evil\n',
            b'[remote "e"]\n\turl = evil\n[branch "main"]\n\tpushremote = e\n',
            b'[remote "e"]\n\turl = ./evil\n',
            b'[remote "e"]\n\turl = https://example.com/x\n[branch "main"]\n\tpushremote = e\n',
        ):
            assert it.settings(".git", settings + more) == REFUSED, more
        it.refused("write('.git/branches', 'e', b'evil\\n')")
        it.git("commit", "-q", "--allow-empty", "-m", "second")
        it.git("push", "-q")
        assert not it.mark.exists()
        assert on_host(tmp_path / "up", "log", "--format=%s", "main", home=tmp_path).split() == ["second", "first"]


def test_settings_of_the_hosts_are_not_made_anew(tmp_path: Path) -> None:
    """A guest removes those of a repository that it has made itself, today or on another day, and no others."""
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        it.refused("os.unlink('config', dir_fd=at('.git'))")
        assert it.settings(".git", MADE + (it.share / ".git/config").read_bytes()) == "works"
        it.refused("os.unlink('config', dir_fd=at('.git'))")
        it.works("make('.', 'new')", "make('new', '.git')")
        assert it.settings("new/.git", b"[core]\n\tbare = false\n") == "works"
        it.git("config", "user.name", "host", where="new")
        assert (it.share / "new/.git/config").read_bytes().startswith(MADE)
        it.works("os.unlink('config', dir_fd=at('new/.git'))")


def test_objects_come_from_no_other_place(tmp_path: Path) -> None:
    """Not by a folder that is renamed when it holds the file, nor one above it."""
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        (it.share / ".git/objects/info").rmdir()
        it.works("make('.git/objects', 'inf')")
        it.refused(
            "write('.git/objects/inf', 'alternates', b'/etc\\n')", "move('.git/objects', 'inf', '.git/objects', 'info')"
        )


def test_a_repository_leads_to_no_folder_above_it(tmp_path: Path) -> None:
    """One that is in a folder `worktrees` is no work tree's part of another."""
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        shutil.rmtree(it.share / ".git")
        for folder, name in ((".", "worktrees"), ("worktrees", ".git"), (".", "objects"), (".", "refs")):
            it.works(f"make({folder!r}, {name!r})")
        it.works(
            "write('worktrees/.git', 'HEAD', b'ref: refs/heads/main\\n')", f"write('.', 'config', {it.evil.encode()!r})"
        )
        it.refused("write('worktrees/.git', 'commondir', b'../..\\n')")
        it.nothing_runs("worktrees")


def test_a_bare_repository_with_work_trees_is_held(tmp_path: Path) -> None:
    """Each work tree takes its settings: they cannot be changed by removing what marks it, nor by another folder in its
    place.
    """
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        it.git("clone", "-q", "--bare", ".", ".bare")
        it.git("worktree", "add", "-q", str(it.share / "tree"), "main", where=".bare")
        it.refused(
            "os.unlink('HEAD', dir_fd=at('.bare'))",
            "move('.bare', 'HEAD', '.bare', 'x')",
            f"write('.bare', 'config', {it.evil.encode()!r})",
            "move('.bare', 'worktrees', '.', 'worktrees')",
        )
        it.works("move('.', '.bare', '.', 'old')", "make('.', '.bare')", "make('.bare', 'worktrees')")
        it.works("make('.bare', 'objects')", "make('.bare', 'refs')", f"write('.bare', 'config', {it.evil.encode()!r})")
        it.refused("move('old/worktrees', 'tree', '.bare/worktrees', 'tree')", "move('old', 'worktrees', '.bare', 'x')")
        it.nothing_runs("tree")


def test_a_submodules_files_go_to_its_own_folder(tmp_path: Path) -> None:
    """Its repository says where its files are, whatever leads there: no link is put in that place, and no repository in
    another's.
    """
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        it.git("clone", "-q", "--bare", ".", str(tmp_path / "up"))
        for name in ("one", "lib/two"):
            it.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "up"), name)
        assert (it.share / "lib/two/.git").is_file()
        it.works("make('.', 'src')", "make('src', 'one')")
        it.refused(
            "move('.', 'one', '.', 'moved')",
            "move('.', 'lib', '.', 'moved')",
            "move('lib', 'two', 'src', 'two')",
            "move('.git/modules', 'one', '.git/modules', 'moved')",
            "move('.git', 'modules', '.git', 'moved')",
        )
        it.works("move('.', 'src', '.', 'lib2')", "move('.', 'file', '.', 'file2')")


def test_a_copy_in_the_making_is_nobodys(tmp_path: Path) -> None:
    """The supervisor of another shed makes it in the same folder, under a name that can be read."""
    with Held(tmp_path) as held:
        it = Scene(held, tmp_path)
        (it.share / ".git/config.0123456789abcdef").write_text("[core]\n")
        it.refused(
            "write('.git', 'config.0123456789abcdef', how=os.O_WRONLY)",
            "os.link('config.0123456789abcdef', 'x', src_dir_fd=at('.git'), dst_dir_fd=at('.git'))",
            "move('.git', 'config.0123456789abcdef', '.git', 'x')",
            "write('.git', 'config.fedcba9876543210')",
        )
