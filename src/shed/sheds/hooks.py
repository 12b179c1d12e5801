"""What a project says of its own shed, in ``.shed/provision.yaml``: hooks, and variables of all commands.

The file comes from a guest, and is read with suspicion.  Hooks run in the shed, as its user: ``install`` once,
``startup`` after each start of the VM, ``shutdown`` before a stop.  A project without it may have a
``devcontainer.json``, whose commands are hooks, too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shed import devjson
from shed.errors import BackendError
from shed.execstream import Output, request_frame
from shed.progress import Progress
from shed.sheds import devcontainer
from shed.sheds.commands import BUSYBOX
from shed.sheds.steps import Open, run_step
from shed.sheds.workspace import TARGET
from shed.untrusted import told

FILE = ".shed/provision.yaml"
FILES = (FILE, *devjson.FILES)
"""The first of these in the workspace counts."""
HOOKS = ("install", "startup", "shutdown")
LOGS = "/var/log/shed"
"""The folder of the guest with a log of the last run of each hook."""
STATE = "/var/lib/shed/provision"
"""The folder of the guest in which a hook that has run once leaves its mark."""
_MOST_FILE = 16 << 10
_MOST_OPENED = 200
"""Brackets: what is within many of them takes long to read."""
_MOST_VARIABLES = 100
_MOST_NOTES = 10
_LONGEST = 4096
_SHORT = 30.0
"""Seconds for what the server itself asks of the guest."""
_MOST_SAID = 2000
_MOST_TOLD = 1 << 20
"""Bytes of what a hook says that are told on the way; its log has all."""
_SHOWN = 60
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_READ = f"""
cd "$HOOK_PLACE" || exit
for file in {" ".join(FILES)}; do
    [ ! -f "$file" ] || {{ echo "$file"; exec $HOOK_TOOLS head -c {devjson.MOST_FILE + 1} "$file"; }}
done
exit 1
"""
_READ_IMAGE = f"exec $HOOK_TOOLS head -c {devjson.MOST_FILE + 1} {devjson.METADATA}"
_SCRIPT = r"""
log=$HOOK_LOGS/$HOOK_NAME.log mark=$HOOK_STATE/$HOOK_NAME
[ -z "$HOOK_ONCE" ] || [ ! -e "$mark" ] || exit 0
cd "$HOOK_PLACE" && : >"$log" || exit
if [ -f "$HOOK" ]; then
    case $HOOK in /*) set -- "$HOOK" ;; *) set -- "./$HOOK" ;; esac
    if [ ! -x "$HOOK" ]; then
        IFS= read -r first <"$HOOK"
        case $first in '#!'*) set -- ${first#??} "$@" ;; *) set -- sh "$@" ;; esac
    fi
else
    set -- sh -c "$HOOK"
fi
shell=sh
! command -v bash >/dev/null || shell=bash
rm -f "$log.code"
( "$shell" -lc 'exec "$@"' shed "$@" >>"$log" 2>&1 </dev/null; echo $? >"$log.code" ) &
at=0
show() {
    size=$($HOOK_TOOLS wc -c <"$log")
    [ "$size" -le $at ] || { $HOOK_TOOLS tail -c +$((at + 1)) "$log" | $HOOK_TOOLS head -c $((size - at)); at=$size; }
}
while [ ! -s "$log.code" ]; do show; $HOOK_TOOLS sleep 0.2; done
show
code=$(cat "$log.code")
rm -f "$log.code"
[ "$code" != 0 ] || [ -z "$HOOK_MARKS" ] || : >"$mark"
exit "$code"
"""
"""What a hook says goes to a file, which is followed: services that it leaves behind go on to write there."""


@dataclass(frozen=True, slots=True)
class Provisioning:
    """What a project says."""

    hooks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For each of `HOOKS`, what is run, by name and in order: a script, by its path in the workspace, or a command."""
    env: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Sentences about what is not done."""

    @classmethod
    def parse(cls, file: str, text: bytes, image: bytes | None = None) -> Provisioning:
        """Return what the `file` of `FILES` says, which is `text`; `image` is what `read` has found in the image.

        Raises `ValueError`.  Takes a moment.
        """
        return cls._of_devcontainer(text, image) if file in devjson.FILES else cls._of_ours(text)

    @classmethod
    def _of_devcontainer(cls, text: bytes, image: bytes | None) -> Provisioning:
        commands, env, notes = devcontainer.parse(text, image)
        _check_variables(_texts("the environment", env))
        hooks = {
            hook: _texts("the file", {name: line for key in keys for name, line in commands[key].items()})
            for hook, keys in (("install", devcontainer.ONCE), ("startup", devcontainer.EACH_START))
        }
        return cls({hook: found for hook, found in hooks.items() if found}, env, tuple(notes[:_MOST_NOTES]))

    @classmethod
    def _of_ours(cls, text: bytes) -> Provisioning:
        import yaml  # noqa: PLC0415  few projects have such a file

        if len(text) > _MOST_FILE:
            raise ValueError(f"it has more than {_MOST_FILE >> 10} KiB")
        if text.count(b"[") + text.count(b"{") > _MOST_OPENED:
            raise ValueError(f"it has more than {_MOST_OPENED} lists and mappings")
        try:
            # All scalars are texts to this loader, and nothing is merged: there is nothing to blow up.
            document = yaml.load(text, yaml.BaseLoader) or {}  # noqa: S506
        except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
            raise ValueError(f"it is not YAML: {told(' '.join(str(error).split()))}") from None
        members = _texts("the file", document, of=(dict, str))
        hooks = _texts("hooks", members.get("hooks") or {})
        env = _texts("env", members.get("env") or {})
        _check_variables(env)
        for name, hook in hooks.items():
            if name in HOOKS and not hook.strip():
                raise ValueError(f"hooks: {name} is empty")
        known = {name: {name: hook} for name, hook in hooks.items() if name in HOOKS}
        unknown = [name for name in members if name not in {"hooks", "env"}]
        unknown += [f"hooks.{name}" for name in hooks if name not in HOOKS]
        return cls(known, dict(env), tuple(f"{told(name)} means nothing here" for name in unknown[:_MOST_NOTES]))


def _check_variables(env: Mapping[str, str]) -> None:
    if len(env) > _MOST_VARIABLES:
        raise ValueError(f"env has more than {_MOST_VARIABLES} variables")
    for name in env:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"env: {told(name)!r} is not the name of a variable")


def _texts(what: str, value: object, of: tuple[type, ...] = (str,)) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{what} does not hold keys and values")
    for name, text in value.items():
        if not isinstance(text, of) or (isinstance(text, str) and ("\0" in text or len(text) > _LONGEST)):
            raise ValueError(f"{what}: {told(name)} is not a text of {_LONGEST} characters at most")
        if isinstance(text, str) and not _is_unicode(name + text):
            raise ValueError(f"{what}: {told(name)} is not Unicode")
    return value


def _is_unicode(text: str) -> bool:
    """Tell whether a guest's process can have `text`: it has no half of a pair of surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def read(open_exec: Open) -> tuple[str, bytes, bytes | None] | None:
    """Return which of `FILES` the workspace has, and what is in it; None when there is none.

    With a ``devcontainer.json`` comes what the image says of the features in it, None when it was not made of one.
    Raises `BackendError`, and what `open_exec` does.
    """
    if (found := await _output(open_exec, _READ)) is None:
        return None
    name, _, content = found.partition(b"\n")
    file = next((file for file in FILES if file.encode() == name), FILE)
    return file, content, await _output(open_exec, _READ_IMAGE) if file in devjson.FILES else None


async def _output(open_exec: Open, script: str) -> bytes | None:
    """Return what `script` says in the guest, None when it fails."""
    text = bytearray()

    def hear(output: Output) -> None:
        if not output.error and len(text) <= 2 * devjson.MOST_FILE:
            text.extend(output.data)

    code = await _asked(open_exec, request_frame([BUSYBOX, "sh", "-c", script], env=_env()), hear)
    return None if code else bytes(text)


async def prepare(open_exec: Open) -> None:
    """Make the folders that hooks write to.  Raises as `read` does."""
    words = [BUSYBOX, "sh", "-c", 'mkdir -p "$HOOK_LOGS" "$HOOK_STATE" && chmod 1777 "$HOOK_LOGS" "$HOOK_STATE"']
    await _asked(open_exec, request_frame(words, env=_env(), user="root"), lambda _: None)


async def _asked(open_exec: Open, request: bytes, hear: Callable[[Output], None]) -> int:
    try:
        return (await run_step(open_exec, request, hear, end=time.monotonic() + _SHORT)).code
    except TimeoutError:
        raise BackendError(f"the guest did not answer within {_SHORT:g} s", code="AGENT_TIMEOUT") from None


def _env(**settings: str) -> list[str]:
    known = {"PLACE": TARGET, "LOGS": LOGS, "STATE": STATE, "TOOLS": BUSYBOX, **settings}
    return [f"HOOK_{name}={value}" for name, value in known.items()]


async def run_hook(
    open_exec: Open, name: str, hook: str, *, once: bool, again: bool = False, limit: float, progress: Progress
) -> str:
    """Run the hook `name`, for `limit` seconds at most; return what went wrong, or nothing.

    One that is to run `once` does nothing when it has succeeded before, unless it is to run `again`.  Raises as `read`
    does.
    """
    shown = told(hook.strip().split("\n")[0])[:_SHOWN]
    progress.phase(name, f"hook {name}: {shown}")
    env = [f"HOOK={hook}", "SHED_CONTAINER=true", *_env(NAME=name, MARKS="1" * once, ONCE="1" * (once and not again))]
    said = _Said(progress)
    try:
        request = request_frame([BUSYBOX, "sh", "-c", _SCRIPT], env=env)
        done = await run_step(open_exec, request, said.hear, end=time.monotonic() + limit)
    except TimeoutError:
        how = f"did not end within {limit:g} s"
    else:
        if not done.code:
            return ""
        how = f"ended with {done.code}" + (f": {done.error}" if done.error else "")
    last = said.last()
    return f"hook {name}, {shown!r}, {how}{f': {last}' if last else ''}; its log in the shed is {LOGS}/{name}.log"


class _Said:
    """What a hook has said: each line is told, and the last one is kept."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._rest = b""
        self._last = ""
        self._heard = 0

    def hear(self, output: Output) -> None:
        *lines, self._rest = (self._rest + output.data).split(b"\n")
        self._rest = self._rest[-_MOST_SAID:]
        for line in lines if self._heard < _MOST_TOLD else lines[-1:]:
            self._tell(line)
        self._heard += len(output.data)

    def _tell(self, line: bytes) -> None:
        text = told(line[:_MOST_SAID].decode(errors="replace").rstrip("\r"), _MOST_SAID)
        self._last = text or self._last
        if self._heard < _MOST_TOLD:
            self._progress.output(text)

    def last(self) -> str:
        """Return the last line that is not empty."""
        if self._rest:
            self._tell(self._rest)
            self._rest = b""
        return self._last[:300]
