"""Files that run by themselves: programs that developers use take commands from them, by their names.

And what some file systems take for one name.
"""

from __future__ import annotations

BY_NAME = {
    ".envrc": "direnv runs it, once you have allowed it",
    ".hg/hgrc": "Mercurial takes programs from it",
    ".vscode/tasks.json": "Visual Studio Code runs tasks from it",
    ".vscode/settings.json": "Visual Studio Code takes programs from it",
    ".vscode/launch.json": "Visual Studio Code runs programs from it",
    "devcontainer.json": "editors run commands from it",
    ".devcontainer.json": "editors run commands from it",
    ".idea/workspace.xml": "JetBrains' editors run programs from it",
    ".zed/tasks.json": "Zed runs tasks from it",
    ".zed/settings.json": "Zed takes programs from it",
    ".claude/settings.json": "Claude Code runs hooks from it",
    ".claude/settings.local.json": "Claude Code runs hooks from it",
    ".mcp.json": "coding agents run servers from it",
    ".cursor/mcp.json": "coding agents run servers from it",
    ".vscode/mcp.json": "coding agents run servers from it",
    ".exrc": "vi may run it",
    ".nvim.lua": "Neovim may run it",
    ".dir-locals.el": "Emacs may run it",
    ".mise.toml": "mise runs it",
    "mise.toml": "mise runs it",
    ".pre-commit-config.yaml": "pre-commit runs programs from it",
    "lefthook.yml": "lefthook runs programs from it",
    ".yarnrc.yml": "Yarn takes programs from it",
    ".npmrc": "npm takes programs from it",
    ".shed/provision.yaml": "sheds that are made with this folder run it",
}
"""Why, by the file's name, or by that of its folder and its own."""
_BY_FOLDER = {"runconfigurations": "JetBrains' editors run programs from it", ".husky": "git may run it: a hook"}
_FOLDERS = {*_BY_FOLDER, *(name.partition("/")[0] for name in BY_NAME if "/" in name)}
_BY_END = {".code-workspace": "Visual Studio Code takes programs from it"}


def why(folder: str, name: str) -> str | None:
    """Return why the file `name` of the folder that is called `folder` runs by itself; None when nothing is known.

    Capitals make no difference: there are file systems to which they are the same.
    """
    folder, name = folder.lower(), name.lower()
    found = BY_NAME.get(name) or BY_NAME.get(f"{folder}/{name}") or _BY_FOLDER.get(folder)
    return found or next((text for end, text in _BY_END.items() if name.endswith(end)), None)


def holds_such(folder: str) -> bool:
    """Tell whether a folder of that name is one in which files run by themselves."""
    return folder.lower() in _FOLDERS


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
