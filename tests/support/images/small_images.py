"""Small images that are nothing like the base image: a busybox alone, and programs without any shell."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shed.images.bootkit.debian_archive import DebianArchive
from shed.images.bootkit.debs import fetch_debs
from shed.oci.pack import pack_archive
from shed.progress import Progress

HELLO = (
    "int main(int argc, char **argv) { return argc > 1 ? argv[1][0] - '0' : (puts(\"hello from a static "
    'program"), 0); }'
)
"""Prints a line and exits with 0, or exits with the digit that it is given."""
APPLETS = (
    "sh",
    "ls",
    "cat",
    "echo",
    "id",
    "uname",
    "mount",
    "ps",
    "env",
    "pwd",
    "touch",
    "true",
    "false",
    "sleep",
    "head",
    "dd",
    "tail",
    "wc",
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\n"

File = bytes | str
"""A file's content, or a symlink's target."""


def busybox_image(output: Path, cache: Path) -> Path:
    """Make an image of Debian's static busybox, a passwd file and nothing else; no glibc, no Debian, user root."""
    debs = fetch_debs(["busybox-static"], archive=DebianArchive(), cache=cache, progress=Progress())
    binary = debs["busybox-static"].read("usr/bin/busybox")
    files: dict[str, File] = {"bin/busybox": binary, "etc/passwd": PASSWD.encode()}
    files |= {f"bin/{name}": "busybox" for name in APPLETS}
    return _pack(output, files, {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]})


def shell_less_image(output: Path) -> Path:
    """Make an image with no shell and no passwd: two static programs, ``/hello`` and ``/true``."""
    return _pack(
        output, {"hello": _static(HELLO), "true": _static("int main(void) { return 0; }")}, {"Cmd": ["/hello"]}
    )


def _static(source: str) -> bytes:
    """Return a static program, compiled with musl where that is installed, and with the C library of this machine
    elsewhere.
    """
    compiler = shutil.which("musl-gcc") or "gcc"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        command: list[str | Path] = [compiler, "-static", "-Os", "-s", "-x", "c", "-", "-o", program]
        subprocess.run(command, input=f"#include <stdio.h>\n{source}\n".encode(), check=True)
        return program.read_bytes()


def _pack(output: Path, files: Mapping[str, File], settings: Mapping[str, object]) -> Path:
    """Write an archive of one layer with `files`, and the folders a machine needs."""
    folders = sorted({"dev", "proc", "sys", "tmp", "run", "root", *(path.rpartition("/")[0] for path in files)} - {""})
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        with tarfile.open(fileobj=file, mode="w") as layer:
            for folder in folders:
                info = tarfile.TarInfo(folder)
                info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                layer.addfile(info)
            for path, content in files.items():
                info = tarfile.TarInfo(path)
                if isinstance(content, str):
                    info.type, info.linkname = tarfile.SYMTYPE, content
                    layer.addfile(info)
                else:
                    info.mode, info.size = 0o644 if path.startswith("etc/") else 0o755, len(content)
                    layer.addfile(info, io.BytesIO(content))
        file.flush()
        pack_archive(output, [Path(file.name)], settings=settings, compression="none")
    return output
