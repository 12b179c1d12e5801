"""`shed setup`: from a fresh machine to the first shed."""

from __future__ import annotations

import sys

from shed.cli.arguments import flag, option
from shed.cli.command import command
from shed.cli.connection import refuse_server
from shed.cli.output import done
from shed.config.images import VARIANTS
from shed.errors import NotFoundError, UnavailableError
from shed.terminal.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options

_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "nft": "nftables",
    "mmdebstrap": "mmdebstrap",
    "gpgv": "gpgv",
}
"""Programs that sheds, and making their images, need, and the Debian packages that have them."""
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SBIN = "/usr/sbin:/sbin"
"""Where some programs are that an ordinary user's PATH does not have."""


@command(
    "setup",
    option(
        "--image", "NAME", "the image to make: base, extensions or full", default="base",
        choices=VARIANTS,
    ),
    flag("--no-doctor", "leave out the checks at the end"),
    examples=["shed setup", "shed setup --image full"],
)  # fmt: skip
def setup(args: Any, options: Options) -> int:
    """Make ready what the first shed needs, from Debian packages; then check this machine.

    That is the boot kit, an image, and virtual machines that sheds are restored from instead of booted.

    Missing packages are named, with the command that installs them.  What is there already is not made again.
    """
    from shed.config.paths import Paths
    from shed.images import references
    from shed.oci.store import LayoutStore

    refuse_server(options, "setup")
    options.json_lines = True  # the image has an object of its own
    _check_packages()
    try:
        references.find_image(LayoutStore(Paths().images), args.image)
    except NotFoundError:
        import subprocess

        from shed.cli.image_build import make_image
        from shed.config.server import machine_settings

        if not options.json:
            note(f"making the image {args.image}; this takes some minutes, most of them for downloads")
        make_image(args.image, options)
        if machine_settings().warm_start:  # without, or when it fails, the first shed is booted
            _server_program("warm", *(["--json"] if options.json else []), output=subprocess.DEVNULL)
    if not (args.no_doctor or options.json):
        note("checking this machine")
    code = 0 if args.no_doctor else _server_program("doctor", output=2)
    done(options, "setup", args.image, f"ready: shed create dev{'' if args.image == 'base' else f' -i {args.image}'}")
    return code


def _check_packages() -> None:
    """Raise `UnavailableError` (TOOL_MISSING) with the command that installs what is missing."""
    import os
    import shutil

    places = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program, path=places) is None]
    if not os.path.exists(_KEYRING):  # noqa: PTH110  few imports
        missing.append("debian-archive-keyring")
    if os.geteuid() and shutil.which("newuidmap", path=places) is None:
        missing.append("uidmap")
    if missing:
        raise UnavailableError(
            f"packages are missing: {', '.join(missing)}",
            code="TOOL_MISSING",
            hint=f"sudo apt-get install --no-install-recommends {' '.join(missing)}",
        )


def _server_program(*words: str, output: int) -> int:
    """Run a command of the server's program, which knows this machine; what it prints goes to `output`."""
    import subprocess

    return subprocess.run([sys.executable, "-m", "shed.server.main", *words], stdout=output, check=False).returncode
