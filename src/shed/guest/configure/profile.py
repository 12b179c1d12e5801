"""The image's PATH in login shells: their /etc/profile sets another one, without looking at what there was."""

from __future__ import annotations

from shed.guest.configure import steps
from shed.guest.users import PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER = "etc/profile.d"
_FILE = f"{_FOLDER}/00-shed-image.sh"
"""The first of its folder: what other files add to PATH stays."""


def keep_path(env: Mapping[str, str], root: str = "") -> None:
    """Have login shells start with the PATH in `env`, where it has a folder that is not usual.

    The shells of an image without `_FOLDER` are left alone.  Raises `OSError`.
    """
    path = env.get("PATH", "")
    usual = set(PATH.split(":"))
    if usual.issuperset(path.split(":")) or not steps.is_folder(f"{root}/{_FOLDER}"):
        return
    quoted = path.replace("'", "'\\''")
    text = (
        f"# Written by shed at each start: /etc/profile forgets the PATH of the image.\nPATH='{quoted}'\nexport PATH\n"
    )
    if steps.read_file(f"{root}/{_FILE}") != text:
        steps.write_file(f"{root}/{_FILE}", text)
