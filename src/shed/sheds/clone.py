"""Cloning a repository in a shed, by its own git and its own user: nothing of it is looked at on the host.

All that goes wrong is told and left to the user: the shed can be used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from shed.config.git import FORGES
from shed.execstream import Output, request_frame
from shed.progress import Progress
from shed.sheds.repository import Repository
from shed.sheds.steps import Open, run_step
from shed.sheds.workspace import TARGET
from shed.untrusted import told

LIMIT = 3600.0
"""Seconds that a clone may take, with its submodules and files of LFS."""
_EVERY = 1.0
"""Least seconds between two sentences about how far it is."""
_MOST_SAID = 4096
"""Bytes of what git has said last, and of what the script has found out, that are looked at."""
_NO_GIT, _NOT_EMPTY = 90, 91
NOT_EMPTY = f"the repository was not cloned: {TARGET} of the image is not empty"
"""What is told when there is something in the workspace; it may be the repository."""
_SCRIPT = r"""
exec 3>&1 1>&2
command -v git >/dev/null 2>&1 || exit 90
case $REPO_PLACE in "~"/*) REPO_PLACE=$HOME/${REPO_PLACE#??}; mkdir -p "$REPO_PLACE" ;; esac
cd "$REPO_PLACE" || exit 1
[ -z "$(ls -A)" ] || exit 91
export GIT_ALLOW_PROTOCOL=https:ssh GIT_TERMINAL_PROMPT=0 GIT_LFS_SKIP_SMUDGE=1
export GIT_SSH_COMMAND='ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=30'
if [ -n "$REPO_KNOWN_HOSTS" ]; then (
    umask 077
    mkdir -p ~/.ssh && touch ~/.ssh/known_hosts && printf '%s\n' "$REPO_KNOWN_HOSTS" |
    while read -r line; do grep -qxF "$line" ~/.ssh/known_hosts || printf '%s\n' "$line" >>~/.ssh/known_hosts; done
) fi
if [ -n "$REPO_SECRET" ]; then
    git config --global --replace-all "credential.https://$REPO_ORIGIN.helper" \
        '!f() { [ "$1" != get ] || printf "username=x-access-token\npassword=%s\n" "$'"$REPO_SECRET"'"; }; f'
fi
git() { command git -c advice.detachedHead=false -c http.lowSpeedLimit=1000 -c http.lowSpeedTime=60 "$@"; }
depth=
[ "$REPO_DEPTH" = 0 ] || depth="--depth=$REPO_DEPTH"
if [ -n "$REPO_COMMIT" ]; then
    git init -q && git remote add origin "$REPO_URL" && git fetch --progress $depth origin "$REPO_COMMIT" &&
    git checkout -q --detach FETCH_HEAD || { code=$?; rm -rf .git; exit $code; }
else
    git clone --progress $depth ${REPO_REF:+--branch "$REPO_REF"} -- "$REPO_URL" . || exit
fi
[ ! -f .gitmodules ] || git submodule update --init --recursive --progress $depth || echo submodules >&3
git grep -q 'filter=lfs' HEAD -- .gitattributes '**/.gitattributes' 2>/dev/null || exit 0
git lfs version >/dev/null 2>&1 || { echo no-lfs >&3; exit 0; }
unset GIT_LFS_SKIP_SMUDGE
git lfs install && git lfs pull || echo lfs >&3
exit 0
"""
_FOUND = {
    "submodules": "not all submodules were fetched",
    "lfs": "not all files of Git LFS were fetched",
    "no-lfs": "the repository has files in Git LFS, and the image has no git-lfs: the image full has it",
}
_NO_ACCESS = re.compile(r"could not read Username|Authentication failed|Repository not found|error: 40[134]")


async def clone(
    open_exec: Open,
    wanted: Repository,
    *,
    depth: int,
    variable: str,
    known_hosts: Sequence[str],
    progress: Progress,
    place: str = TARGET,
    agent: str | None = None,
) -> list[str]:
    """Clone `wanted` into the folder `place`; return a sentence for each thing that went wrong.

    The last `depth` commits are fetched; 0: all.  git gets the password that `variable` of the shed has, if it names
    one, and ssh the keys of the `agent` at that socket.  `known_hosts` are lines of that file, beside those of the big
    forges.  Raises what `open_exec` does.
    """
    progress.phase("clone", f"cloning {wanted}")
    settings = {
        "PLACE": place,
        "URL": wanted.url,
        "REF": wanted.ref,
        "COMMIT": wanted.ref if wanted.is_commit else "",
        "DEPTH": str(depth),
        "ORIGIN": wanted.origin,
        "SECRET": variable,
        "KNOWN_HOSTS": "\n".join((*FORGES, *known_hosts)) if wanted.ssh else "",
    }
    env = [f"REPO_{name}={value}" for name, value in settings.items()]
    env += [f"SSH_AUTH_SOCK={agent}"] if agent else []
    heard = _Heard(progress)
    try:
        request = request_frame(["sh", "-c", _SCRIPT], env=env, working_dir=TARGET)
        done = await run_step(open_exec, request, heard.hear, end=time.monotonic() + LIMIT)
    except TimeoutError:
        return [f"{_not_cloned(place)} within {LIMIT / 60:g} minutes"]
    if not done.code:
        return heard.found()
    return [f"{_not_cloned(place)}: {_why(done.code, done.error, heard, wanted, place)}"]


class _Heard:
    """What the script and git have said: the end of it, and how far they are."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._found = b""
        self._said = b""
        self._told = 0.0

    def hear(self, output: Output) -> None:
        if not output.error:
            self._found = (self._found + output.data)[-_MOST_SAID:]
            return
        self._said = (self._said + output.data)[-_MOST_SAID:]
        if time.monotonic() - self._told >= _EVERY and (lines := re.split(rb"[\r\n]", self._said)[:-1]):
            self._told = time.monotonic()
            self._progress.phase("clone", f"cloning: {told(lines[-1].decode(errors='replace'))}")

    def found(self) -> list[str]:
        words = self._found.decode(errors="replace").split()
        last = self.last()
        return [
            sentence + (f": {last}" if word != "no-lfs" and last else "")
            for word, sentence in _FOUND.items()
            if word in words
        ]

    def last(self) -> str:
        """Return why git gave up, as it says."""
        lines = [line.strip() for line in re.split(r"[\r\n]", self._said.decode(errors="replace")) if line.strip()]
        causes = [line for line in lines if line.startswith(("fatal: ", "error: "))]
        return told((causes or lines or [""])[-1])

    def has(self, text: bytes) -> bool:
        """Say whether git, or ssh, has said so."""
        return text in self._said


def _not_cloned(place: str) -> str:
    return f"{'the repository was' if place == TARGET else 'the dotfiles were'} not cloned"


def _why(code: int, error: str | None, heard: _Heard, wanted: Repository, place: str) -> str:
    if code == _NO_GIT or error:
        return "the image has no git; the images base, extensions and full have it"
    if code == _NOT_EMPTY:
        return f"{place} of the image is not empty"
    last, host = heard.last(), wanted.host
    if wanted.ssh and heard.has(b"Host key verification failed"):
        return f"no key of {host} is known; put its line into git.extra_known_hosts"
    if wanted.ssh and heard.has(b"Permission denied"):
        return (
            f"{host} lets nobody in without a key, and the shed has none; allow it those of your SSH agent: "
            f"shed update NAME --ssh-agent {host} && "
            + ("shed provision NAME -A" if place == TARGET else f"ssh -A shed-NAME git clone {wanted.url} {place}")
        )
    sentence = f"git ended with {code}" + (f": {last}" if last else "")
    if not wanted.ssh and _NO_ACCESS.search(last):
        sentence += f"; if it is private, give the shed a secret for {host}: shed secret set NAME --host {host}"
    return sentence
