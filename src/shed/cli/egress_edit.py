"""`shed egress profile edit`: a profile in the user's editor."""

from __future__ import annotations

from shed.cli.arguments import argument
from shed.cli.command import command
from shed.cli.connection import client
from shed.cli.egress import as_yaml, read_profile
from shed.cli.output import done
from shed.errors import ConflictError, ShedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from shed.cli.options import Options

_NEW = """# Rules of the egress profile {name}.  Denials are asked first, then the first rule that fits decides.
#   - allow: "*.example.com"     # subdomains only
#     ports: [443]               # without ports: all
#   - allow: 10.1.2.0/24
#   - deny: tracker.example.com
rules: []
log: refused                     # or all
"""


@command(
    "egress profile edit",
    argument("PROFILE", "name of the profile; one that there is not yet is made"),
    examples=["EDITOR=nano shed egress profile edit work"],
)
def edit_profile(args: Any, options: Options) -> int:
    """Change the rules of a profile in the editor that VISUAL or EDITOR names.  The sheds that have it obey at once.

    Nothing is changed when the rules are wrong; the text is kept then, and the error says where.
    """
    import os
    import tempfile
    from pathlib import Path

    server = client(options)
    found = next((one for one in server.egress_profiles()["profiles"] if one.get("name") == args.profile), None)
    if found is not None and found.get("kind") != "own":
        hint = f"make another one of it: shed egress profile show {args.profile} > FILE"
        raise ConflictError(
            f"the egress profile {args.profile!r} cannot be changed", code="EGRESS_PROFILE_FIXED", hint=hint
        )
    before = _NEW.format(name=args.profile) if found is None else as_yaml(found)
    descriptor, name = tempfile.mkstemp(prefix=f"{args.profile}-", suffix=".yaml")
    path = Path(name)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(before)
    try:
        _edit(path)
        if path.read_bytes() == before.encode():
            words = f"{args.profile} is as it was"
        else:
            changed = server.set_egress_profile(args.profile, read_profile(name))
            words = f"set {args.profile}: {len(changed.get('rules') or [])} rules"
    except ShedError as error:
        error.hint = f"your text is in {path}; correct it, then: shed egress profile set {args.profile} {path}"
        raise
    path.unlink()
    done(options, "egress-profile", args.profile, words)
    return 0


def _edit(path: Path) -> None:
    """Have the user edit a file.  Raises `UsageError` when the editor fails."""
    import os
    import shlex
    import subprocess

    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        code = subprocess.run([*editor, path], check=False).returncode
    except OSError as error:
        raise UsageError(f"the editor {editor[0]!r} cannot be run: {error.strerror}") from None
    if code:
        raise UsageError(f"the editor {editor[0]!r} has failed with code {code}")
