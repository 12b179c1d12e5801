"""The SDK is written once: what is generated is what would be generated, and the two flavours have the same names."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from shed.api.making import CreateShed, UpdateShed
from shed.client.aio import driver as aio_driver
from shed.client.aio import process as aio_process
from shed.client.options import ShedChanges, ShedOptions
from shed.client.sync import driver as sync_driver
from shed.client.sync import process as sync_process

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))
sdk = importlib.import_module("sdk")
sys.path.pop(0)
HAND_WRITTEN = ("driver", "process")


def test_every_option_of_a_new_shed_is_there() -> None:
    """The members of the request are those that a program can give, but the one that needs a connection."""
    assert ShedChanges.__optional_keys__ == set(UpdateShed.__struct_fields__)
    assert ShedOptions.__optional_keys__ | {"name", "attached"} == set(CreateShed.__struct_fields__)


@pytest.mark.parametrize("name", sdk.MODULES)
def test_what_is_generated_is_up_to_date(name: str) -> None:
    """After a change of the source: make sdk."""
    assert (ROOT / f"src/shed/client/sync/{name}.py").read_text() == sdk.generated(name), "run: make sdk"


def test_every_module_is_generated_or_has_its_pair() -> None:
    """None is forgotten."""
    for flavour in ("aio", "sync"):
        found = {path.stem for path in (ROOT / f"src/shed/client/{flavour}").glob("*.py")}
        assert found == {"__init__", *sdk.MODULES, *HAND_WRITTEN}


@pytest.mark.parametrize("name", sdk.MODULES)
def test_nothing_of_asyncio_is_left(name: str) -> None:
    """And what is generated can be read as if somebody had written it."""
    tree = ast.parse((ROOT / f"src/shed/client/sync/{name}.py").read_text())
    asynchronous = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(tree) if isinstance(node, asynchronous)]
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id.startswith(("Async", "asyncio"))
    ]


def members(owner: object) -> dict[str, object]:
    """Return the public members of a class, or the public functions and classes that a module defines."""
    named = vars(owner).items()
    if isinstance(owner, ModuleType):
        named = {name: value for name, value in named if getattr(value, "__module__", "") == owner.__name__}.items()
    return {
        name.removeprefix("Async"): value
        for name, value in named
        if not name.startswith("_") and (callable(value) or isinstance(value, classmethod | property))
    }


def signature(value: object) -> str:
    """Return the parameters of a function, without what only one of the flavours has words for."""
    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    assert callable(function)
    words = str(inspect.signature(function).replace(return_annotation=inspect.Signature.empty))
    return re.sub(r"\bAsync(?=[A-Z])", "", words.replace("Coroutine[Any, Any, T]", "T"))


@pytest.mark.parametrize(("ours", "theirs"), [(aio_driver, sync_driver), (aio_process, sync_process)])
def test_what_is_written_twice_has_the_same_names_and_parameters(ours: ModuleType, theirs: ModuleType) -> None:
    """Functions, classes, and the methods that both have; files of the one are streams with the same methods."""
    one, other = members(ours), members(theirs)
    streams = {"Input", "Output"} if ours is aio_process else set()
    extra = {"ended", "kill"}
    assert set(one) - streams == set(other)
    for name, value in one.items():
        if name in streams:
            continue
        if not inspect.isclass(value):
            assert signature(value) == signature(other[name]), name
            continue
        first, second = members(value), members(other[name])
        assert set(first) - extra == set(second), name
        for method in second:
            assert signature(first[method]) == signature(second[method]), f"{name}.{method}"


def test_streams_of_a_process_have_the_methods_of_files() -> None:
    """So that a program moves from one flavour to the other by adding await."""
    import io

    for stream, file in ((aio_process.AsyncOutput, io.BufferedReader), (aio_process.AsyncInput, io.FileIO)):
        for method in members(stream):
            assert hasattr(file, method), f"{stream.__name__}.{method}"
