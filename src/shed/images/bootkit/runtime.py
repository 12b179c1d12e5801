"""Makes the runtime: what the agent runs on, whatever image a shed has.

::

    lib/ld-linux-x86-64.so.2, lib/*.so*    the loader, and the libraries that Python and its modules need
    lib/python3.13/                        standard library as .pyc files without sources; C modules in lib-dynload/
    bin/python3, bin/busybox               busybox is static
    bin/modprobe                           what the kernel calls when it wants a module: the script guest/modprobe
    helpers/                               scp and sftp-server for images that lack them: scripts that start bin/NAME
                                           by the loader above
    modules/*.ko, modules/aliases          modules that it may want, decompressed, and by which names
    agent/shed/                            the agent, with sources, and .pyc files in __pycache__
    share/uppers/5G                        empty writable layers by their size, see `upper` and `ready`
    share/upper.ext4                       one of 256 MiB, for hosts that do not know those

It is started as ``lib/ld-linux-x86-64.so.2 --inhibit-cache --library-path lib bin/python3 -I -S
agent/shed/guest/__main__.py``: neither the image's loader nor its libraries nor its Python are touched.

The .pyc files are made by the very interpreter that will read them, and are never compared with a source ("unchecked
hash", PEP 552).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from shed.errors import DataError
from shed.images.bootkit.debs import LOADER, Deb, closure
from shed.images.bootkit.elf import Elf
from shed.images.bootkit.tree import Tree
from shed.run import run

PYTHON = "python3.13"
MOUNT_POINT = "/run/shed-runtime"
"""Where guests mount the runtime; file names in tracebacks begin with it."""
_STDLIB = f"usr/lib/{PYTHON}/"
_LEFT_OUT = (
    "test/", "idlelib/", "tkinter/", "turtle", "ensurepip/", "pydoc", "venv/", "unittest/", "doctest.py", "sqlite3/",
    "curses/", "dbm/", "_pyrepl/", "xmlrpc/", "wsgiref/", "__phello__", "antigravity.py", "this.py", "webbrowser.py",
    "encodings/cp", "encodings/mac_", "lib-dynload/_codecs_", "lib-dynload/_multibytecodec", "lib-dynload/_test",
    "lib-dynload/_ctypes_test", "lib-dynload/xx", "lib-dynload/_xx",
)  # fmt: skip
"""How paths in the standard library begin that an agent has no use for."""

_OPENED_LATER = ("libgcc_s.so.1",)
"""Libraries that no file asks for: the C library opens this one when a thread ends early."""

_HELPER = """\
#!{top}/bin/busybox sh
exec {top}/lib/{loader} --inhibit-cache --library-path {top}/lib {top}/bin/{name} "$@"
"""

_COMPILE = """\
import os, py_compile, sys
top, prefix = sys.argv[1:]
checked = py_compile.PycInvalidationMode.UNCHECKED_HASH
for line in sys.stdin:
    source, target = line.rstrip("\\n").split("\\0")
    os.makedirs(os.path.dirname(os.path.join(top, target)), exist_ok=True)
    py_compile.compile(os.path.join(top, source), os.path.join(top, target), prefix + source, True, 0, checked)
"""
"""Run by the runtime's own Python: compiles the files named on stdin."""


def read_stdlib(debs: Iterable[Deb], libraries: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the standard library's files by path below ``lib/python3.13/``, without what is left out.

    C modules that need a library which is not among `libraries` (``_ssl``, ``_sqlite3``, ``readline``) are left out
    too.
    """
    files = {}
    for deb in debs:
        for path, content in deb.members(lambda path: path.startswith(_STDLIB) and path.endswith((".py", ".so"))):
            name = path[len(_STDLIB) :]
            if not isinstance(content, bytes) or name.startswith(_LEFT_OUT):
                continue
            if name.endswith(".py") or all(needed in libraries for needed in Elf(content, name).needed()):
                files[name] = content
    return files


def read_agent(package: Path) -> dict[str, bytes]:
    """Return the agent's sources by path below ``agent/``; `package` is the folder of the package ``shed``."""
    files = [package / "__init__.py", *package.joinpath("guest").rglob("*.py")]
    return {f"shed/{file.relative_to(package)}": file.read_bytes() for file in files}


def build_runtime(
    *,
    python: bytes,
    busybox: bytes,
    stdlib: Mapping[str, bytes],
    libraries: Mapping[str, bytes],
    agent: Mapping[str, bytes],
    modprobe: bytes,
    helpers: Mapping[str, bytes],
    scratch: Path,
) -> Tree:
    """Return the tree of the runtime, without modules and empty writable layers.

    `scratch` is a new folder for files in between.

    Raises `DataError` when a library is missing or a source does not compile.
    """
    modules = {name: data for name, data in stdlib.items() if name.endswith(".so")}
    tree = Tree()
    tree.file(f"bin/{PYTHON}", python, 0o755)
    tree.symlink("bin/python3", PYTHON)
    tree.file("bin/busybox", busybox, 0o755)
    tree.file("bin/modprobe", modprobe, 0o755)
    for name, data in helpers.items():
        tree.file(f"bin/{name}", data, 0o755)
        tree.file(f"helpers/{name}", _HELPER.format(top=MOUNT_POINT, loader=LOADER, name=name), 0o755)
    needed = closure({"python3": python, **modules, **helpers}, libraries)
    for name, data in [*needed.items(), *((name, libraries[name]) for name in _OPENED_LATER)]:
        tree.file(f"lib/{name}", data, 0o755)
    for name, data in modules.items():
        tree.file(f"lib/{PYTHON}/{name}", data)
    for name, data in agent.items():
        tree.file(f"agent/{name}", data)
    compiled = {f"lib/{PYTHON}/{name}": f"lib/{PYTHON}/{name}c" for name in stdlib if name.endswith(".py")}
    compiled |= {f"agent/{name}": f"agent/{_cached(name)}" for name in agent}
    sources = {f"lib/{PYTHON}/{name}": data for name, data in stdlib.items()}
    for name, data in _compile(tree, sources, compiled, scratch).items():
        tree.file(name, data)
    return tree


def _cached(name: str) -> str:
    """Return the path of the .pyc of the source `name` (PEP 3147)."""
    folder, _, file = name.rpartition("/")
    return (
        f"{folder}/__pycache__/{file.removesuffix('.py')}.cpython-{PYTHON.removeprefix('python').replace('.', '')}.pyc"
    )


def _compile(tree: Tree, sources: Mapping[str, bytes], compiled: Mapping[str, str], scratch: Path) -> dict[str, bytes]:
    """Compile with the Python in `tree`; `compiled` says which source becomes which file.

    The standard library is given in `sources`.
    """
    for name, data in {**tree.regular_files(), **sources}.items():
        path = scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (scratch / "lib" / LOADER).chmod(0o755)
    work = "".join(f"{source}\0{target}\n" for source, target in sorted(compiled.items()))
    command = [
        *start_command(scratch, scratch / "bin" / PYTHON),
        "-B",
        "-S",
        "-P",
        "-s",
        "-c",
        _COMPILE,
        scratch,
        f"{MOUNT_POINT}/",
    ]
    result = run(command, stdin=work.encode(), env={"PYTHONHASHSEED": "0", "PYTHONHOME": str(scratch)})
    if result.stderr:
        raise DataError(f"compiling for the runtime: {result.stderr.decode(errors='replace').strip()[:500]}")
    return {target: (scratch / target).read_bytes() for target in compiled.values()}


def start_command(top: Path, program: Path) -> list[str | Path]:
    """Return the first words of a command that runs `program` of the runtime unpacked at `top`."""
    return [top / "lib" / LOADER, "--inhibit-cache", "--library-path", top / "lib", program]
