"""Runs in the guest, as its root, with ``PROGRAM`` set before it: all that it gets through is told at the end."""

# ruff: noqa: PTH101, PTH102, PTH103, PTH104, PTH106, PTH108, PTH116, PTH211, T201
import os
import shutil
from collections.abc import Callable

PROGRAM = str(globals().get("PROGRAM", ""))
EVIL = (
    f"[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfsmonitor = {PROGRAM}\n\thooksPath = /workspace/hooked\n"
)
got_through: list[str] = []


def attack(function: Callable[[], None]) -> None:
    """Try one; it is to end in a refusal."""
    try:
        function()
    except OSError:
        return
    got_through.append(str(function.__doc__))


def write(path: str, text: str, mode: str = "w") -> None:
    with open(path, mode) as file:
        file.write(text)


def prepare(folder: str, *, head: bool = False) -> None:
    """Make all of a repository that can be made anywhere."""
    for name in ("objects", "refs", "hooks"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
    write(f"{folder}/config", EVIL)
    write(f"{folder}/hooks/post-commit", f"#!/bin/sh\n{PROGRAM}\n")
    os.chmod(f"{folder}/hooks/post-commit", 0o755)
    if head:
        write(f"{folder}/HEAD", "ref: refs/heads/main\n")


os.chdir("/workspace/project")
prepare("/workspace/prepared")
G = ".git"


@attack
def _() -> None:
    """settings, removed"""
    os.unlink(f"{G}/config")


@attack
def _() -> None:
    """settings, appended"""
    write(f"{G}/config", EVIL, "a")


@attack
def _() -> None:
    """settings, by a lock"""
    write(f"{G}/config.lock", EVIL, "x")
    os.rename(f"{G}/config.lock", f"{G}/config")


@attack
def _() -> None:
    """settings, moved away and made again"""
    os.rename(f"{G}/config", f"{G}/config.old")
    write(f"{G}/config", EVIL)


@attack
def _() -> None:
    """settings, removed and linked"""
    shutil.copy(f"{G}/config", "/workspace/saved")
    os.link(f"{G}/config", "/workspace/alias")
    write("/workspace/alias", EVIL, "a")


@attack
def _() -> None:
    """settings of a work tree"""
    write(f"{G}/config.worktree", EVIL)


@attack
def _() -> None:
    """settings under a name that is the same for some file systems"""
    write(f"{G}/CONFIG", EVIL)


@attack
def _() -> None:
    """another common folder"""
    write(f"{G}/commondir", "../../prepared\n")


@attack
def _() -> None:
    """hooks"""
    write(f"{G}/hooks/post-commit", f"#!/bin/sh\n{PROGRAM}\n")


@attack
def _() -> None:
    """hooks, from a sample"""
    os.rename(f"{G}/hooks/post-update.sample", f"{G}/hooks/post-update")


@attack
def _() -> None:
    """the hooks' folder"""
    os.rename(f"{G}/hooks", f"{G}/hooks.old")
    os.rename("/workspace/prepared/hooks", f"{G}/hooks")


@attack
def _() -> None:
    """the hooks' folder, removed and linked"""
    os.makedirs(f"{G}/modules/m")
    os.symlink("/workspace/prepared/hooks", f"{G}/modules/m/hooks")


@attack
def _() -> None:
    """the repository, moved away"""
    os.rename(G, "git.old")


@attack
def _() -> None:
    """a prepared folder as a repository"""
    os.mkdir("sub")
    os.rename("/workspace/prepared", "sub/.git")


@attack
def _() -> None:
    """a prepared folder as a link"""
    os.makedirs("sub2")
    os.symlink("/workspace/prepared", "sub2/.git")


@attack
def _() -> None:
    """a prepared folder as a submodule's repository"""
    os.makedirs(f"{G}/modules", exist_ok=True)
    os.rename("/workspace/prepared", f"{G}/modules/evil")


@attack
def _() -> None:
    """a bare repository in the user's sources"""
    prepare("src", head=True)


@attack
def _() -> None:
    """a bare repository by a link"""
    os.symlink("refs/heads/main", "src/HEAD")


@attack
def _() -> None:
    """a bare repository by a file that is moved"""
    write("src/HAED", "ref: refs/heads/main\n")
    os.rename("src/HAED", "src/HEAD")


@attack
def _() -> None:
    """a repository among the branches"""
    os.makedirs(f"{G}/refs/remotes/evil/refs", exist_ok=True)
    write(f"{G}/refs/remotes/evil/HEAD", "ref: refs/heads/main\n")
    write(f"{G}/refs/remotes/evil/config", EVIL)
    os.mkdir(f"{G}/refs/remotes/evil/objects")


@attack
def _() -> None:
    """a repository from among the branches"""
    os.rename(f"{G}/refs/remotes/evil", "/workspace/evil")


@attack
def _() -> None:
    """a folder of branches under another name"""
    os.makedirs(f"{G}/other/refs", exist_ok=True)
    write(f"{G}/other/refs/HEAD", "ref: refs/heads/main\n")
    write(f"{G}/other/refs/config", EVIL)
    os.rename(f"{G}/other/refs", f"{G}/other/repository")


@attack
def _() -> None:
    """a work tree's folder, moved so that its common folder is another"""
    os.makedirs(f"{G}/worktrees/w", exist_ok=True)
    os.rename(f"{G}/worktrees/w", f"{G}/w")


@attack
def _() -> None:
    """the remote's settings: a bare repository of the host's"""
    write("/workspace/origin.git/config", EVIL)


@attack
def _() -> None:
    """the remote's hooks"""
    write("/workspace/origin.git/hooks/post-update", f"#!/bin/sh\n{PROGRAM}\n")


@attack
def _() -> None:
    """a `.git` file that leads to a folder of sources"""
    os.makedirs("sub3")
    write("sub3/.git", "gitdir: ../doc\n")


@attack
def _() -> None:
    """a `.git` file in the place of the repository"""
    os.makedirs("sub4/.git")
    os.rmdir("sub4/.git")
    write("sub4/.git", "gitdir: ../doc\n")


@attack
def _() -> None:
    """settings among the branches"""
    write(f"{G}/refs/remotes/evil/config", EVIL)


@attack
def _() -> None:
    """a link to sources among the repositories of submodules"""
    os.symlink("../../doc", f"{G}/modules/linked")


@attack
def _() -> None:
    """another common folder, above a repository"""
    os.makedirs("/workspace/worktrees/.git")
    write("/workspace/worktrees/.git/commondir", "../..\n")


@attack
def _() -> None:
    """other objects, by a folder that gets its name later"""
    os.makedirs(f"{G}/objects/inf", exist_ok=True)
    write(f"{G}/objects/inf/alternates", "/etc\n")


@attack
def _() -> None:
    """a remote that is a file, and a folder of the host"""
    os.makedirs(f"{G}/branches", exist_ok=True)
    write(f"{G}/branches/evil", "doc/store\n")


@attack
def _() -> None:
    """an index that leads into the repository"""
    import hashlib

    path = b".git/hooks/post-checkout"
    entry = bytes(40) + bytes(20) + len(path).to_bytes(2, "big") + path
    data = b"DIRC" + (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + entry + bytes(8 - len(entry) % 8)
    file = os.open(f"{G}/index.lock", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(file, data + hashlib.sha1(data).digest())
    os.close(file)
    try:
        os.rename(f"{G}/index.lock", f"{G}/index")
    finally:
        os.unlink(f"{G}/index.lock")


@attack
def _() -> None:
    """a list of files that git copies"""
    write(f"{G}/MERGE_RR", f"{'1' * 40}\t/etc/shadow\0")


@attack
def _() -> None:
    """a log that is a link to a file of the host's"""
    os.symlink("../../../profile", f"{G}/logs/other")


@attack
def _() -> None:
    """an index, written directly"""
    write(f"{G}/index", "DIRC")


@attack
def _() -> None:
    """the remote, without the file that says that it is one"""
    os.unlink("/workspace/origin.git/HEAD")
    write("/workspace/origin.git/config", EVIL)
    write("/workspace/origin.git/HEAD", "ref: refs/heads/main\n")


@attack
def _() -> None:
    """a repository whose name is written otherwise"""
    os.mkdir("src/.GIT")


def held_open() -> None:
    """Write to what was put in place of the settings, through a file that was open before."""
    os.makedirs("/workspace/fresh/.git/refs")
    os.makedirs("/workspace/fresh/.git/objects")
    write("/workspace/fresh/.git/HEAD", "ref: refs/heads/main\n")
    with open("/workspace/fresh/.git/config.lock", "x") as lock:
        lock.write("[core]\n\tbare = false\n")
        lock.flush()
        os.rename("/workspace/fresh/.git/config.lock", "/workspace/fresh/.git/config")
        try:
            lock.write(EVIL)
            lock.flush()
        except OSError:
            pass
    with open("/workspace/fresh/.git/config") as file:
        if "fsmonitor" in file.read():
            got_through.append("settings through an open file")


held_open()

for number, mode in enumerate((0o6755, 0o4755, 0o2755)):
    write(f"/workspace/file{number}", "#!/bin/sh\n")

    @attack
    def _(path: str = f"/workspace/file{number}", mode: int = mode) -> None:
        """set-id bits"""
        os.chmod(path, mode)

    @attack
    def _(path: str = f"/workspace/made{number}", mode: int = mode) -> None:
        """set-id bits of a new file"""
        os.umask(0)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))
        if not os.stat(path).st_mode & 0o6000:
            raise OSError("without")

    @attack
    def _(path: str = f"/workspace/folder{number}", mode: int = mode) -> None:
        """set-id bits of a folder"""
        os.mkdir(path)
        os.chmod(path, mode)

    @attack
    def _(path: str = f"/workspace/node{number}", mode: int = mode) -> None:
        """set-id bits of a node"""
        os.mknod(path, mode)
        if not os.stat(path).st_mode & 0o6000:
            raise OSError("without")


@attack
def _() -> None:
    """a device"""
    os.mknod("/workspace/null", 0o20666, os.makedev(1, 3))


@attack
def _() -> None:
    """a file's capabilities"""
    os.setxattr("/workspace/file0", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))


print("\n".join(got_through))
raise SystemExit(len(got_through))
