"""This machine's git in a guest, and repositories on the host for it to work in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from shed.backends.base import Connection
from support.vms.lab import run

TOOLS = ".tools"
_INSTALL = f"""
cd /workspace/{TOOLS} && mkdir -p /usr/bin /lib64 /usr/share && cp git /usr/bin/ && cp -r lib/. /lib64/
mkdir -p /usr/lib/git-core && ln -sf /usr/bin/git /usr/lib/git-core/git
for name in git-upload-pack git-receive-pack; do ln -sf git /usr/bin/$name; done
cp -r templates /usr/share/git-templates
cat > /etc/gitconfig <<'EOF'
[safe]
directory = *
[user]
name = guest
email = guest@example.org
[gc]
autoDetach = false
EOF
"""


def put_tools(folder: Path) -> None:
    """Put git, its libraries and its templates into a folder that will be shared."""
    tools = folder / TOOLS
    (tools / "lib").mkdir(parents=True)
    git = shutil.which("git")
    assert git is not None
    shutil.copy(git, tools / "git")
    for line in subprocess.run(["ldd", git], check=True, capture_output=True, text=True).stdout.splitlines():
        words = [word for word in line.split() if word.startswith("/")]
        if words:
            shutil.copy(words[0], tools / "lib" / Path(words[0]).name)
    shutil.copytree("/usr/share/git-core/templates", tools / "templates")


async def install(link: Connection) -> None:
    """Put the tools where they belong in the guest, on its own disk."""
    assert await run(link, "/bin/busybox", "sh", "-ec", _INSTALL) == (0, b"")


async def in_guest(link: Connection, script: str) -> tuple[int, bytes]:
    """Run a shell script in the guest, where git is."""
    settings = (
        "export LD_LIBRARY_PATH=/lib64 GIT_TEMPLATE_DIR=/usr/share/git-templates "
        "GIT_CONFIG_SYSTEM=/etc/gitconfig HOME=/root"
    )
    return await run(link, "/bin/busybox", "sh", "-ec", f"{settings} GIT_EDITOR=true PAGER=cat\nexec 2>&1\n{script}")


def on_host(folder: Path, *words: str, home: Path) -> str:
    """Run git on the host, as its user would; return what it says."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_COUNT": "3"}
    settings = (("user.name", "host"), ("user.email", "host@example.org"), ("safe.directory", "*"))
    for index, (key, value) in enumerate(settings):
        environment |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    done = subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def make_project(folder: Path, *, home: Path) -> Path:
    """Make a repository with a remote one beside it, which has a branch more."""
    project = folder / "project"
    (project / "src").mkdir(parents=True)
    on_host(folder, "init", "-q", "-b", "main", str(project), home=home)
    (project / "src/code").write_text("code\n")
    on_host(project, "add", ".", home=home)
    on_host(project, "commit", "-qm", "first", home=home)
    on_host(project, "branch", "feature", home=home)
    on_host(folder, "clone", "-q", "--bare", "project", "origin.git", home=home)
    on_host(project, "branch", "-D", "feature", home=home)
    on_host(project, "remote", "add", "origin", "../origin.git", home=home)
    on_host(project, "config", "core.sshCommand", "the-users-own-ssh", home=home)
    return project
