"""Who the user is to git: told to a new shed that works on a repository."""

from __future__ import annotations

from shed.errors import ShedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.client.sync.api import Api

_TELL = """
command -v git >/dev/null || exit 0
for key in name email; do
    value=$(eval "printf %s \\"\\$SHED_GIT_$key\\"")
    [ -z "$value" ] || git config --global --get "user.$key" >/dev/null || git config --global "user.$key" "$value"
done
"""
"""Sets what is not set yet: an image, or the project, may know better."""


def introduce(server: Api, name: str) -> str:
    """Have git in the shed `name` commit as git here does; return a sentence about what went wrong, or nothing."""
    from shed.client.execution import Execution

    env = [f"SHED_GIT_{key}={value}" for key in ("name", "email") if (value := _mine(key))]
    if not env:
        return ""
    try:
        with open("/dev/null", "wb") as nothing, Execution(server.address, name, ["sh", "-c", _TELL], env=env) as told:
            ended = told.run(stdin=None, stdout=nothing.fileno(), stderr=nothing.fileno())
    except ShedError as error:
        return f"git in {name} does not know who you are: {error.message}"
    return f"git in {name} does not know who you are: exit code {ended.code}" if ended.code else ""


def _mine(key: str) -> str:
    """Return what git here says of the user, of all repositories; nothing where it does not know, or is not there."""
    from shed.run import run

    try:
        found = run(["git", "config", "--global", "--get", f"user.{key}"], check=False, timeout=10)
    except ShedError:
        return ""
    text = found.stdout.decode(errors="replace").strip()
    return text if found.returncode == 0 and text.isprintable() else ""
