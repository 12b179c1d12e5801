"""Dotfiles: a repository that the user of a shed gets in ``~/.dotfiles``, and what is done with it there.

What it brings to install itself runs, by the names that Codespaces knows.  Without that, what begins with a dot is
linked from the home; a file that is there already is kept beside, as ``NAME.before-dotfiles``.
"""

from __future__ import annotations

from shed.progress import Progress
from shed.sheds import hooks
from shed.sheds.steps import Open

PLACE = "~/.dotfiles"
_INSTALL = r""": install dotfiles
cd ~/.dotfiles || exit
for file in install.sh install bootstrap.sh bootstrap script/bootstrap setup.sh setup script/setup; do
    [ -f "$file" ] || continue
    [ ! -x "$file" ] || exec "./$file"
    IFS= read -r first <"$file"
    case $first in '#!'*) exec ${first#??} "./$file" ;; *) exec sh "./$file" ;; esac
done
put() {
    if [ -d "$1" ] && [ -d "$2" ] && [ ! -L "$2" ]; then
        for each in "$1"/* "$1"/.[!.]*; do
            [ ! -e "$each" ] || link "$each" "$2/${each##*/}"
        done
    else
        link "$1" "$2"
    fi
}
link() {
    [ -L "$2" ] || [ ! -e "$2" ] || mv "$2" "$2.before-dotfiles" || exit
    ln -sfn "$1" "$2" || exit
}
for file in .[!.]*; do
    case $file in .git | .gitignore | .gitmodules | .gitattributes | .github) continue ;; esac
    [ ! -e "$file" ] || put "$HOME/.dotfiles/$file" "$HOME/$file"
done
"""


async def install(open_exec: Open, *, limit: float, progress: Progress) -> str:
    """Install what was cloned, as the shed's user, for `limit` seconds at most; return what went wrong, or nothing.

    Raises as `shed.sheds.hooks.read` does.
    """
    await hooks.prepare(open_exec)
    return await hooks.run_hook(open_exec, "dotfiles", _INSTALL, once=False, limit=limit, progress=progress)
