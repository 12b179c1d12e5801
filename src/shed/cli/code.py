"""`shed code`: a shed in an editor of this machine, which comes by SSH."""

from __future__ import annotations

import shutil

from shed.cli.arguments import SHED, argument, option
from shed.cli.command import command
from shed.cli.output import done
from shed.errors import NotFoundError, UnavailableError
from shed.names import check_shed_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

_FOLDER_URI = ("--folder-uri", "vscode-remote://ssh-remote+{host}{folder}")
_EDITORS = {
    "code": _FOLDER_URI,
    "cursor": _FOLDER_URI,
    "windsurf": _FOLDER_URI,
    "codium": _FOLDER_URI,
    "zed": ("ssh://{host}{folder}",),
}
"""What each takes, in the order in which they are looked for."""


@command(
    "code",
    SHED,
    argument("FOLDER", "folder of the shed (default: /workspace)", count="?", offers=""),
    option("-e, --editor", "EDITOR", "default: the first of these that is installed", choices=tuple(_EDITORS)),
    examples=["shed code dev", "shed code dev /workspace/api --editor zed"],
)
def code(args: Any, options: Options) -> int:
    """Open a folder of a shed in an editor of this machine, which reaches it by SSH.

    VS Code, Cursor, Windsurf and VSCodium need their extension for remote SSH.  JetBrains Gateway takes the host
    shed-NAME, as every program does that uses OpenSSH's configuration.
    """
    from urllib.parse import quote

    from shed.run import run

    host = _host(check_shed_name(args.name), options)
    editor = args.editor or next((name for name in _EDITORS if shutil.which(name)), None)
    if editor is None:
        raise UnavailableError(
            "no editor was found", code="TOOL_MISSING", hint=f"install one of {', '.join(_EDITORS)}; or use: ssh {host}"
        )
    folder = args.folder or "/workspace"
    place = quote("/" + folder.lstrip("/"))
    words = [word.format(host=host, folder=place) for word in _EDITORS[editor]]
    run([editor, *words], env=_desktop(), hint=f"is {editor} installed here?")
    done(options, "code", args.name, f"{editor} opens {host}:{folder}", editor=editor, host=host, folder=folder)
    return 0


def _host(name: str, options: Options) -> str:
    """Return what OpenSSH calls a shed.  Raises `NotFoundError` where its configuration does not have it."""
    from pathlib import Path

    from shed.client.config import load
    from shed.client.ssh_config import hosts_of, read

    config = load(options.config)
    found = hosts_of(read(Path(config.path).with_name("ssh_config")), name)
    mine = [alias for alias, server in found if server == options.server] if options.server else []
    if not mine and not found:
        raise NotFoundError(f"OpenSSH does not know shed {name!r}", hint="tell it: shed ssh-config --install")
    return (mine or [alias for alias, _ in found])[0]


def _desktop() -> dict[str, str]:
    """Return what a program with a window needs of our environment."""
    import os

    names = (
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "XAUTHORITY",
        "DBUS_SESSION_BUS_ADDRESS",
        "SSH_AUTH_SOCK",
        "VSCODE_IPC_HOOK_CLI",
    )
    return {name: os.environ[name] for name in names if name in os.environ}
