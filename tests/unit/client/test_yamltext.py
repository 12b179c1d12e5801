"""Changing YAML that people wrote: what is not changed stays, to the letter."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shed.config.yamltext import drop, load, put

HAND_WRITTEN = """\
# my servers

servers:   # the fast ones first
  lab: {host: lab.example}   # under the desk

  # the old one
  old:
    host: old.example
    http_port: 81


# what my editor keeps here
editor:
    theme: dark      # not light
    list: [1,  2,   3]
default_server: lab
"""


def test_an_entry_is_added_behind_the_others() -> None:
    """Comments, blank lines, and odd spacing stay."""
    changed = put(HAND_WRITTEN, ("servers", "new"), {"host": "n", "http_port": 1})
    assert changed == HAND_WRITTEN.replace(
        "    http_port: 81\n", "    http_port: 81\n  new:\n    host: n\n    http_port: 1\n"
    )


def test_an_entry_is_replaced_in_its_place() -> None:
    """Its own comment goes with it, no other does."""
    changed = put(HAND_WRITTEN, ("servers", "lab"), {"host": "b"})
    assert changed == HAND_WRITTEN.replace("  lab: {host: lab.example}   # under the desk\n", "  lab:\n    host: b\n")
    assert put(HAND_WRITTEN, ("default_server",), "old") == HAND_WRITTEN.replace(
        "default_server: lab", "default_server: old"
    )


def test_an_entry_is_dropped_and_its_section_with_the_last() -> None:
    """The comment above an entry stays: nobody knows what it is about."""
    once = drop(HAND_WRITTEN, ("servers", "old"))
    assert once == HAND_WRITTEN.replace("  old:\n    host: old.example\n    http_port: 81\n", "")
    twice = drop(once, ("servers", "lab"))
    assert "servers" not in load(twice)
    assert "# what my editor keeps here\neditor:\n    theme: dark      # not light\n" in twice
    assert drop(twice, ("servers", "lab")) == twice


@pytest.mark.parametrize(
    "text",
    ["", "# nothing yet\n", "---\n", "servers:\n", "servers: {}\n", "servers: {a: {host: b}}", "x: |\n  # text\n\n"],
)
def test_whatever_there_was(text: str) -> None:
    """A file that is new, empty, or written in braces gets the entry, too."""
    before = load(text)
    changed = put(text, ("servers", "lab"), {"host": "h"})
    assert load(changed) == {**before, "servers": {**(before.get("servers") or {}), "lab": {"host": "h"}}}
    assert load(drop(changed, ("servers", "lab"))).get("x") == before.get("x")


@pytest.mark.parametrize("text", ["{servers: {a: 1}}\n", "servers: [1]\n", "x: 1\n...\n"])
def test_what_cannot_be_changed_is_refused(text: str) -> None:
    """And never damaged."""
    with pytest.raises(ValueError, match=r"."):
        put(text, ("servers", "lab"), {"host": "h"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a: 1\na: 2\n", "a is there twice"), ("a: {", "not YAML"), ("[1]", "keys and values"), ("a\n", "keys")],
)
def test_what_is_not_read(text: str, reason: str) -> None:
    """One line that says why."""
    with pytest.raises(ValueError, match=reason):
        load(text)


KEYS = st.sampled_from(["servers", "sheds", "mine", "default_server"])
SCALARS = st.one_of(st.text(max_size=6), st.integers(), st.booleans(), st.none())
VALUES = st.one_of(SCALARS, st.dictionaries(st.sampled_from("xy"), SCALARS, max_size=2))
DOCUMENTS = st.dictionaries(KEYS, st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=3), max_size=4)


@settings(deadline=None)
@example({"servers": {"a": False}}, False, "servers", "a", "a\x85")
@given(DOCUMENTS, st.booleans(), KEYS, st.sampled_from("abcd"), SCALARS)
def test_any_document_says_what_it_should(
    document: dict[str, object], flow: bool, section: str, key: str, value: object
) -> None:
    """Whatever the document, and however it is written: it is changed as asked, or refused."""
    text = yaml.safe_dump(document, default_flow_style=None if flow else False, allow_unicode=True)
    try:
        changed = put(text, (section, key), value)
        dropped = drop(changed, (section, key))
    except ValueError:
        assert text.startswith("{")
        return
    assert load(changed)[section][key] == value
    assert key not in (load(dropped).get(section) or {})
