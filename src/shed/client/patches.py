"""What has changed in a repository of a shed, as a patch that git in the shed makes.

It is what somebody else has written: whoever shows or applies it treats it so.
"""

from __future__ import annotations

from shed.client.address import Address
from shed.client.asking import ask
from shed.client.commands import assignments, words_of
from shed.errors import DataError, NotFoundError, ShedError
from shed.sizes import format_size
from shed.untrusted import told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST_PATCH = 256 << 20
"""Bytes of a patch that are taken."""
_NO_GIT, _NO_REPOSITORY, _NO_COMMIT, _NO_BASE = 90, 91, 92, 93
_SCRIPT = r"""
command -v git >/dev/null 2>&1 || exit 90
top=$(git rev-parse --show-toplevel) && cd "$top" || exit 91
if [ -n "$PATCH_BASE" ]; then
    base=$(git rev-parse -q --verify --end-of-options "$PATCH_BASE^{commit}") || exit 92
else
    base=$(git merge-base HEAD '@{upstream}' 2>/dev/null) || base=$(git log -g --format=%H HEAD 2>/dev/null | tail -n 1)
fi
[ -n "$base" ] || exit 93
index=$(mktemp) || exit
trap 'rm -f "$index" "$index.lock"' EXIT
cp "$(git rev-parse --git-path index)" "$index" 2>/dev/null || rm -f "$index"
export GIT_INDEX_FILE="$index"
git add -A || exit
git diff-index --cached -p --binary --full-index --no-color --no-ext-diff --no-textconv --no-renames "$base"
"""
"""An index of its own has what was not added, too, and the user's index is as it was."""


class PatchError(ShedError):
    """A patch cannot be made in a shed, or does not apply here."""

    code = "PATCH_FAILED"


def script(base: str | None) -> tuple[str, dict[str, str]]:
    """Return the script for sh that prints the patch in a shed, and its environment."""
    return _SCRIPT, {"PATCH_BASE": base or ""}


def write_patch(
    address: Address,
    name: str,
    write: Callable[[bytes], object],
    *,
    folder: str | None,
    base: str | None,
    user: str | None,
    on_start: Callable[[], None],
) -> int:
    """Have `write` get the patch from commit `base` to what is in the repository `folder` of the shed `name` now.

    By default `folder` is the workspace, and `base` what the repository has of its upstream, or what was cloned.
    Returns how many bytes it has.  Raises `PatchError`, `NotFoundError`, `DataError` for too large a one, and what
    `write` does, when all has come.
    """
    size = 0

    def take(data: bytes) -> None:
        nonlocal size
        size += len(data)
        if size > MOST_PATCH:
            raise DataError(
                f"the patch of {name} is larger than {format_size(MOST_PATCH)}",
                hint="push from there, or copy what has changed: shed cp",
            )
        write(data)

    command, env = script(base)
    ended, said = ask(
        address, name, words_of(command), hear=take, env=assignments(env), folder=folder, user=user, on_start=on_start
    )
    if ended.code or ended.error:
        raise failure(name, ended.code, ended.error or told(said[-1] if said else ""), base)
    return size


def failure(name: str, code: int, said: str, base: str | None) -> ShedError:
    """Return the error for the exit code of the script in the shed `name`, and the last that it said."""
    if code == _NO_GIT:
        return PatchError(f"shed {name!r} has no git", hint="the images base, extensions and full have it")
    if code == _NO_REPOSITORY:
        return PatchError(
            f"there is no git repository in that folder of shed {name!r}" + (f": {said}" if said else ""),
            hint="name the folder of one: --folder FOLDER",
        )
    if code == _NO_COMMIT:
        return NotFoundError(f"there is no commit {base!r} in shed {name!r}", hint="see: git log, in the shed")
    if code == _NO_BASE:
        return PatchError(
            f"nothing tells from where the repository in shed {name!r} has come", hint="name a commit: --base COMMIT"
        )
    return PatchError(f"git in shed {name!r} failed with {code}" + (f": {said}" if said else ""))
