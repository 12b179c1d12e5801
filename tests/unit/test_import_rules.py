"""Imports run one way: the rule of docs/architecture.md, enforced."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/shed"
GROUND = {
    "budget",
    "errors",
    "names",
    "progress",
    "fsutil",
    "run",
    "entries",
    "text",
    "threads",
    "untrusted",
    "version",
}
MAY_IMPORT = {
    "config": set(),
    "erofs": set(),
    "oci": set(),
    "guest": set(),
    "images": {"config", "erofs", "oci"},
    "backends": {"config", "guest.protocol"},
    "sheds": {"config", "erofs", "oci", "images", "backends", "guest.protocol"},
    "server": {
        "config",
        "erofs",
        "oci",
        "images",
        "backends",
        "sheds",
        "guest.protocol",
        "cli.options",
        "cli.output",
        "cli.progress",
    },
    "client": {"config", "guest.protocol", "guest.archive"},
    "cli": {"config", "client", "erofs", "oci", "images", "guest.protocol"},
}
FILES = sorted(SOURCE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the absolute names of all modules that the file imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = ("shed", *path.relative_to(SOURCE).parts)[: -node.level]
                base = ".".join([*package, *([node.module] if node.module else [])])
            else:
                base = node.module or ""
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_what_lies_below_it(path: Path) -> None:
    """Each folder imports its own files, the ground, and the folders below it."""
    part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    allowed = GROUND if part in GROUND else MAY_IMPORT[part] | {part} | (set() if part == "guest" else GROUND)
    for name in imported(path):
        if not name.startswith("shed."):  # the bare package holds nothing; who ships our sources asks it where they are
            continue
        module = name.removeprefix("shed.")
        assert any(module == a or module.startswith(a + ".") for a in allowed), (
            f"{path.relative_to(SOURCE)} imports {name}"
        )


@pytest.mark.parametrize("path", sorted((SOURCE / "guest").rglob("*.py")), ids=lambda path: path.name)
def test_the_guest_uses_the_standard_library_alone(path: Path) -> None:
    """The agent runs in any image, so nothing from PyPI can be there."""
    foreign = {
        name for name in imported(path) if name.split(".")[0] not in {*sys.stdlib_module_names, "shed", "__future__"}
    }
    assert not foreign


def test_every_folder_has_a_rule() -> None:
    """A new folder cannot slip in without saying what it may import."""
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(MAY_IMPORT)
