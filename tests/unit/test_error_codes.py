"""Every error that the source raises is in the table of codes, and the table has no other."""

from __future__ import annotations

import ast
import importlib.util
import re
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from shed import error_codes, errors
from shed.errors import KINDS, BackendError, ConflictError, NotFoundError, ShedError, UsageError, heard
from shed.sheds.agent import AGENT_CODES

SOURCE = Path(__file__).parents[2] / "src/shed"
CODES = {code: kind for kind, _, _, codes in error_codes.GROUPS for code in codes}


@cache
def _modules() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


@cache
def _classes() -> dict[str, tuple[str, str | None]]:
    """Return the parent, and the code if it sets one, of each subclass of `ShedError`."""
    found: dict[str, tuple[str, str | None]] = {"ShedError": ("", ShedError.code)}
    definitions = [
        node for module in _modules().values() for node in ast.walk(module) if isinstance(node, ast.ClassDef)
    ]
    before = 0
    while len(found) > before:
        before = len(found)
        for node in definitions:
            parent = next((base.id for base in node.bases if isinstance(base, ast.Name) and base.id in found), None)
            if parent is not None:
                found[node.name] = (parent, next(_own_code(node), None))
    return found


def _own_code(node: ast.ClassDef) -> Iterator[str]:
    for line in node.body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "code":
            yield ast.literal_eval(line.value)


def _family(name: str) -> list[str]:
    """Return the class and those it comes from."""
    line = [name]
    while line[-1] != "ShedError":
        line.append(_classes()[line[-1]][0])
    return line


def _codes_of(value: ast.expr, scope: ast.AST, module: ast.Module) -> set[str]:
    """Return the codes that `value` may be.

    A parameter, and the code of another error, are looked at where they come from.
    """
    if isinstance(value, ast.Constant):
        return {value.value} if isinstance(value.value, str) else set()
    if isinstance(value, ast.IfExp):
        return _codes_of(value.body, scope, module) | _codes_of(value.orelse, scope, module)
    if isinstance(value, ast.Name):
        texts = [
            _texts(node.value) for node in ast.walk(scope) if isinstance(node, ast.Assign) and _sets(node, value.id)
        ]
        if not texts:
            texts = [
                _texts(node.value) for node in module.body if isinstance(node, ast.Assign) and _sets(node, value.id)
            ]
        return {text for found in texts for text in found if text in CODES or _LOOKS_LIKE_ONE.fullmatch(text)}
    if isinstance(value, ast.Call) and ast.unparse(value.args[0]) == "'code'":  # what a description says by ``code=``
        return set()
    assert isinstance(value, ast.Attribute | ast.Subscript), f"{ast.unparse(value)} hides which code it is"
    return set()


_LOOKS_LIKE_ONE = re.compile(r"[A-Z]+(?:_[A-Z]+)+")


def _texts(value: ast.expr) -> set[str]:
    return {node.value for node in ast.walk(value) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _sets(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for top in node.targets for target in ast.walk(top))


def _calls() -> Iterator[tuple[str, str, set[str]]]:
    """Yield for every call: where it is, what is called, and which codes it is given."""
    for path, module in _modules().items():
        functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        scopes = {id(node): scope for scope in [module, *functions] for node in ast.walk(scope)}
        for node in ast.walk(module):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                codes = [
                    _codes_of(word.value, scopes[id(node)], module)
                    for word in node.keywords
                    if word.arg == "code" and (called in _classes() or isinstance(word.value, ast.Constant))
                ]
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", called, set().union(*codes)


def test_codes_are_in_the_table_once() -> None:
    """No code stands in two groups, so each has one class, one HTTP status and one exit code."""
    counts = Counter(code for *_, codes in error_codes.GROUPS for code in codes)
    assert [code for code, count in counts.items() if count > 1] == []
    assert {kind for kind, *_ in error_codes.GROUPS} <= KINDS.keys()


def test_meanings_are_sentences() -> None:
    """What a code means is a sentence; the next step, if there is one, is a line as hints are."""
    for *_, codes in error_codes.GROUPS:
        for code, (meaning, step) in codes.items():
            assert meaning[0].isupper(), code
            assert meaning.endswith("."), code
            assert not step.endswith("."), code


def test_every_raised_code_is_in_the_table_and_of_its_class() -> None:
    """Each call that makes an error names a code of the table, whose class there is the error's own or a parent."""
    wrong = [
        (place, called, code)
        for place, called, codes in _calls()
        for code in sorted(codes)
        if code not in CODES or (called in _classes() and CODES[code] not in _family(called))
    ]
    assert wrong == []


def test_every_class_has_a_code_of_its_own_family() -> None:
    """The code that a class sets is in the table, by that class or a parent."""
    wrong = [name for name, (_, code) in _classes().items() if code and CODES.get(code) not in _family(name)]
    assert wrong == []


def test_every_code_of_the_table_is_raised() -> None:
    """Each code is that of a class, or some call names it, or the agent in the guest says it."""
    used = {code for _, code in _classes().values() if code} | AGENT_CODES
    for _, _, codes in _calls():
        used |= codes
    assert CODES.keys() - used == set()


def test_the_page_is_what_the_table_says() -> None:
    """Write it anew with `make reference` when this fails; it has each code once."""
    spec = importlib.util.spec_from_file_location("error_reference", SOURCE.parents[1] / "scripts/error_reference.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.PAGE.read_text() == made.page()
    assert sorted(re.findall(r"^\| `([^`]+)` \|", made.page(), re.MULTILINE)) == sorted(CODES)


def test_the_guest_says_no_other_codes() -> None:
    """The numbers of a start and the agent's refusals are those that the host knows, and are all there."""
    said = {"SHED-INIT-" + number for number in re.findall(r"\bpanic (\d\d)", (SOURCE / "guest/init").read_text())}
    for path, module in _modules().items():
        if path.is_relative_to(SOURCE / "guest"):
            for text in _texts_of(module):
                said.update(re.findall(r"SHED-INIT-\d\d", text))
                said.update(re.findall(r"^(?:UNKNOWN_OPERATION|NOT_CONFIGURABLE|NOT_FROZEN)$", text))
    assert said == AGENT_CODES


def _texts_of(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_raising_another_code_fails() -> None:
    """A code that is not in the table, or not of the class, is a bug, and is told as one."""
    with pytest.raises(AssertionError, match="not in the table"):
        ShedError("x", code="NO_SUCH_CODE")
    with pytest.raises(AssertionError, match="a code of NotFoundError, not of UsageError"):
        UsageError("x", code="SHED_NOT_FOUND")


def test_an_error_has_the_status_of_its_code() -> None:
    """Status and exit code are the table's, whatever the class."""
    error = UsageError("x", code="METHOD_NOT_ALLOWED")
    assert (error.http_status, error.exit_code) == (405, 2)
    assert ShedError("x", code="INTERRUPTED").exit_code == 130


def test_the_next_step_is_the_hint_or_the_tables() -> None:
    """A hint goes before the table's next step, and an empty one is none."""
    assert NotFoundError("x", code="SHED_NOT_FOUND").next_step == "see: shed list"
    assert NotFoundError("x", code="SHED_NOT_FOUND", hint="look").next_step == "look"
    assert NotFoundError("x", code="SHED_NOT_FOUND", hint="").next_step == ""


def test_a_traceback_tells_code_and_hint() -> None:
    """A script that uses the SDK and does not catch the error shows what to do."""
    error = NotFoundError("there is no shed 'x'", code="SHED_NOT_FOUND", hint="look")
    lines = "".join(traceback.format_exception(error)).splitlines()
    assert lines[-3:] == ["shed.errors.NotFoundError: there is no shed 'x'", "code: SHED_NOT_FOUND", "hint: look"]
    assert str(error) == "there is no shed 'x'"


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("SHED_NOT_FOUND", 404, NotFoundError),
        ("SHED_NOT_FOUND", 0, NotFoundError),
        ("SHED_ALREADY_STOPPED", 503, ConflictError),
        ("REGISTRY_DENIED", 502, errors.RegistryError),
        ("CONNECT_FAILED", 500, errors.ConnectError),
        ("FROM_THE_FUTURE", 404, NotFoundError),
        ("FROM_THE_FUTURE", 500, ShedError),
        ("FROM_THE_FUTURE", 418, ShedError),
        ("INVALID_FUTURE", 0, UsageError),
        ("VM_EXITED", 500, BackendError),
    ],
)
def test_the_code_decides_the_class_of_a_heard_error(code: str, status: int, kind: type[ShedError]) -> None:
    """The status decides for codes that are not in the table alone; both stay readable."""
    error = heard("it failed", code=code, status=status)
    assert (type(error), error.code) == (kind, code)
    if code not in CODES:
        assert error.http_status == (status or kind("x").http_status)
