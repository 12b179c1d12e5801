"""Files that run by themselves: programs that developers use take commands from them, by their names.

And what some file systems take for one name.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SHELL = "a shell runs it, or a login does"
_GIT = "git takes programs from it"
_LEFTHOOK = "lefthook runs programs from it"
BY_NAME = {
    ".envrc": "direnv runs it, once you have allowed it",
    ".hg/hgrc": "Mercurial takes programs from it",
    ".hg/hgrc-not-shared": "Mercurial takes programs from it",
    ".vscode/tasks.json": "Visual Studio Code runs tasks from it",
    ".vscode/settings.json": "Visual Studio Code takes programs from it",
    ".vscode/launch.json": "Visual Studio Code runs programs from it",
    "devcontainer.json": "editors run commands from it",
    ".devcontainer.json": "editors run commands from it",
    ".idea/workspace.xml": "JetBrains' editors run programs from it",
    ".zed/tasks.json": "Zed runs tasks from it",
    ".zed/settings.json": "Zed takes programs from it",
    ".bashrc": _SHELL,
    ".bash_profile": _SHELL,
    ".bash_login": _SHELL,
    ".bash_logout": _SHELL,
    ".bash_aliases": _SHELL,
    ".profile": _SHELL,
    ".zshrc": _SHELL,
    ".zshenv": _SHELL,
    ".zprofile": _SHELL,
    ".zlogin": _SHELL,
    ".zlogout": _SHELL,
    ".kshrc": _SHELL,
    ".cshrc": _SHELL,
    ".tcshrc": _SHELL,
    ".login": _SHELL,
    ".xprofile": _SHELL,
    ".xsession": _SHELL,
    "config.fish": _SHELL,
    ".tmux.conf": "tmux runs programs from it",
    ".gitconfig": _GIT,
    "git/config": _GIT,
    ".vimrc": "vi runs it",
    ".gvimrc": "vi runs it",
    ".cargo/config.toml": "cargo takes programs from it",
    ".cargo/config": "cargo takes programs from it",
    ".claude/settings.json": "Claude Code runs hooks from it",
    ".claude/settings.local.json": "Claude Code runs hooks from it",
    ".mcp.json": "coding agents run servers from it",
    ".cursor/mcp.json": "coding agents run servers from it",
    ".cursor/hooks.json": "coding agents run hooks from it",
    ".gemini/settings.json": "coding agents run servers from it",
    ".codex/config.toml": "coding agents run servers from it",
    ".vscode/mcp.json": "coding agents run servers from it",
    ".exrc": "vi may run it",
    ".nvim.lua": "Neovim may run it",
    ".dir-locals.el": "Emacs may run it",
    ".mise.toml": "mise runs it",
    "mise.toml": "mise runs it",
    ".mise.local.toml": "mise runs it",
    "mise.local.toml": "mise runs it",
    ".mise/config.toml": "mise runs it",
    "mise/config.toml": "mise runs it",
    ".pre-commit-config.yaml": "pre-commit runs programs from it",
    ".yarnrc.yml": "Yarn takes programs from it",
    ".yarnrc": "Yarn takes programs from it",
    ".pnpmfile.cjs": "pnpm runs it",
    ".pnpmfile.mjs": "pnpm runs it",
    ".npmrc": "npm takes programs from it",
    ".shed/provision.yaml": "sheds that are made with this folder run it",
}
"""Why, by the file's name, or by that of its folder and its own."""
_BY_FOLDER = {
    "runconfigurations": "JetBrains' editors run programs from it",
    ".husky": "git may run it: a hook",
    ".ssh": "ssh takes programs from it, and lets in whom it names",
}
"""Why, by the name of a folder that it is in, at any depth."""
_REPOSITORIES = {".git", ".hg", ".jj", ".svn", ".sl", ".bzr", "_darcs", ".pijul"}
_FOLDERS = {*_BY_FOLDER, *(name.partition("/")[0] for name in BY_NAME if "/" in name)}
_BY_END = {
    ".code-workspace": "Visual Studio Code takes programs from it",
    **{f"lefthook{more}.{end}": _LEFTHOOK for more in ("", "-local") for end in ("yml", "yaml", "toml", "json")},
}


def why(folder: str, name: str) -> str | None:
    """Return why the file `name` of the folder that is called `folder` runs by itself; None when nothing is known.

    Capitals make no difference: there are file systems to which they are the same.
    """
    folder, name = folder.lower(), name.lower()
    found = BY_NAME.get(name) or BY_NAME.get(f"{folder}/{name}") or _BY_FOLDER.get(folder)
    return found or next((text for end, text in _BY_END.items() if name.endswith(end)), None)


def why_below(folders: Iterable[str]) -> str | None:
    """Return why all that is below `folders` may run by itself, by one of their names; None when nothing is known."""
    return next((_BY_FOLDER[name.lower()] for name in folders if name.lower() in _BY_FOLDER), None)


def holds_such(folder: str) -> bool:
    """Tell whether a folder of that name is one in which files run by themselves."""
    return folder.lower() in _FOLDERS


def is_repository(plain: bytes) -> bool:
    """Tell whether a folded name may be that of what git, or a program like it, keeps: its settings run programs."""
    name, short, number = plain.decode(errors="ignore").partition("~")
    return name in _REPOSITORIES or bool(short and number.isdigit() and {f".{name}", f"_{name}"} & _REPOSITORIES)


def fold(name: bytes) -> bytes:
    """Return what file systems that take some names for the same may take `name` for."""
    if not name.isascii():
        import unicodedata  # noqa: PLC0415  for few

        text = unicodedata.normalize("NFKD", name.decode(errors="ignore").casefold())
        name = text.encode("ascii", errors="ignore")
    return name.partition(b":")[0].rstrip(b". ").lower()


def is_git(plain: bytes) -> bool:
    """Tell whether a folded name may be `.git`, also by the short names that FAT gives it."""
    return plain == b".git" or (plain.startswith(b"git~") and plain[4:].isdigit())
