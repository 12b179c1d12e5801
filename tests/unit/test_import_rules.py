"""Imports run one way: the rule of docs/architecture.md, enforced."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/shed"
GROUND = {
    "accept",
    "budget",
    "checks",
    "devjson",
    "error_codes",
    "errors",
    "names",
    "progress",
    "proxies",
    "fsutil",
    "inwaiting",
    "run",
    "selfrun",
    "sizes",
    "sshkeys",
    "entries",
    "text",
    "threads",
    "untrusted",
    "version",
    "execstream",
    "linux",
}
GROUND_MAY_IMPORT = {"execstream": {"guest.protocol"}}
"""What single files of the ground import besides the ground."""
CLI_PURE = {"egress.rules", "sheds.artifact", "sheds.snapshotstore"}
"""What the command line asks without a server."""
MAY_IMPORT = {
    "config": {"egress.rules"},
    "api": {"guest.protocol"},
    "egress": set(),
    "erofs": set(),
    "oci": set(),
    "guest": set(),
    "replica": set(),
    "linux": set(),
    "images": {"config", "erofs", "oci"},
    "backends": {"config", "egress.network", "guest.protocol"},
    "sheds": {"api", "config", "egress", "erofs", "oci", "images", "backends", "guest.protocol"},
    "server": {
        "api",
        "config",
        "egress",
        "erofs",
        "oci",
        "images",
        "backends",
        "sheds",
        "guest.protocol",
        "terminal",
    },
    "client": {
        "api",
        "config",
        "guest.protocol",
        "guest.archive",
        "guest.receiver",
        "guest.tar",
        "guest.wirejson",
        "replica",
    },
    "terminal": {"config"},
    "mcp": {"api", "client", "config", "guest.protocol"},
    "cli": {"api", "terminal", "config", "client", "mcp", "erofs", "oci", "images", "guest.protocol", *CLI_PURE},
}
FILES = sorted(SOURCE.rglob("*.py"))


def statements(tree: ast.AST, *, for_types: bool) -> Iterator[ast.AST]:
    """Yield all nodes of a file; without `for_types`, not what only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if not for_types and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from statements(node, for_types=for_types)


def imported(path: Path, *, for_types: bool = True) -> set[str]:
    """Return the absolute names of all modules that the file imports, at any depth of its code."""
    names = set()
    for node in statements(ast.parse(path.read_text()), for_types=for_types):
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
    allowed = (
        GROUND | GROUND_MAY_IMPORT.get(part, set())
        if part in GROUND
        else MAY_IMPORT[part] | {part} | (set() if part in {"guest", "replica"} else GROUND)
    )
    for name in imported(path):
        if not name.startswith("shed."):  # the bare package holds nothing; who ships our sources asks it where they are
            continue
        module = name.removeprefix("shed.")
        assert any(module == a or module.startswith(a + ".") for a in allowed), (
            f"{path.relative_to(SOURCE)} imports {name}"
        )


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.relative_to(SOURCE).parts[0] in {"guest", "replica"}],
    ids=lambda path: path.name,
)
def test_the_guest_uses_the_standard_library_alone(path: Path) -> None:
    """The agent runs in any image, so nothing from PyPI can be there."""
    foreign = {
        name for name in imported(path) if name.split(".")[0] not in {*sys.stdlib_module_names, "shed", "__future__"}
    }
    assert not foreign


def test_only_the_factory_knows_a_vmm_by_name() -> None:
    """What is inside a VMM's folder is used there alone; others get a backend from the factory and its interface."""
    vmms = {path.name for path in (SOURCE / "backends").iterdir() if (path / "backend.py").exists()}
    inside = tuple(f"shed.backends.{name}" for name in vmms)
    users = {
        str(path.relative_to(SOURCE))
        for path in FILES
        if not any(path.is_relative_to(SOURCE / "backends" / name) for name in vmms)
        and any(name.startswith(inside) for name in imported(path))
    }
    assert users == {"backends/factory.py"}


def test_every_folder_has_a_rule() -> None:
    """A new folder cannot slip in without saying what it may import."""
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(MAY_IMPORT)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the shortest cycle of each group of nodes that reach each other, as "a", "b", "a"."""
    found = []
    settled: set[str] = set()
    for start in sorted(graph):
        if start in settled:
            continue
        came_from = dict.fromkeys(sorted(graph[start]), start)
        queue = list(came_from)
        for node in queue:
            for target in sorted(graph[node]):
                if target not in came_from:
                    came_from[target] = node
                    queue.append(target)
        if start not in came_from:
            continue
        cycle = [start, came_from[start]]
        while cycle[-1] != start:
            cycle.append(came_from[cycle[-1]])
        found.append(cycle[::-1])
        settled |= {node for node in came_from if start in reachable(graph, node)}
    return found


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return all nodes that can be reached from `start`, `start` itself only through a cycle."""
    seen: set[str] = set()
    queue = [start]
    while queue:
        more = graph[queue.pop()] - seen
        seen |= more
        queue += more
    return seen


def test_there_are_no_import_cycles() -> None:
    """There are no import cycles between files.  An import inside a function counts too: it only hides a cycle."""
    modules = {
        ".".join(("shed", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in FILES
    }
    graph = {}
    for module, path in modules.items():
        names = imported(path, for_types=False)
        files = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module] = files & modules.keys() - {module}
    found = cycles(graph)
    assert not found, "\n".join(" -> ".join(cycle) for cycle in found)


def test_cycles_are_found() -> None:
    """One is found for each group, the shortest; a path that does not lead back is none."""
    graph: dict[str, set[str]] = {
        "a": {"b", "e"}, "b": {"c"}, "c": {"a", "b", "d"}, "d": set(), "e": {"f"}, "f": {"e", "g"}, "g": set(),
    }  # fmt: skip
    assert cycles(graph) == [["a", "b", "c", "a"], ["e", "f", "e"]]
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
