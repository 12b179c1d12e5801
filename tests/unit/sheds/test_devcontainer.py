"""What is taken of a ``devcontainer.json``, and what is told of the rest."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shed import devjson
from shed.sheds.hooks import Provisioning

FILE = devjson.FILES[0]
WHOLE = rb"""
// For format details, see https://example.com/{not a member}
{
    "name": "A project // with \"marks\" /* in */ its name,]",
    "image": "mcr.example.com/devcontainers/base:bookworm",   /* a block,
        of two lines */
    "features": {"ghcr.example.com/features/node:1": {"version": "22",}},
    "containerEnv": {"PLACE": "${containerWorkspaceFolder}/src", "URL": "http://x//y", "HOME_OF": "${localEnv:HOME}"},
    "remoteEnv": {"PATH": "${containerEnv:PATH}:/x", "GONE": null, "PLACE": "/workspace/b"},
    "onCreateCommand": "npm ci && npm run build // no comment",
    "updateContentCommand": ["npm", "run", "a b"],
    "postCreateCommand": {"server": "make 'it'", "client": ["echo", "$HOME"]},
    "postStartCommand": "echo started",
    "postAttachCommand": "echo attached",
    "initializeCommand": "rm -rf ${localWorkspaceFolder}",
    "forwardPorts": [3000, "db:5432"],
    "customizations": {"vscode": {"extensions": ["a.b"]}},
    "somethingNew": 1,
}
"""


def test_commands_and_variables_are_taken_and_the_rest_is_told() -> None:
    """In their order; nothing of the host is known, and what is for the host is not run."""
    found = Provisioning.parse(FILE, WHOLE)
    assert {kind: [*each] for kind, each in found.hooks.items()} == {
        "install": ["onCreateCommand", "updateContentCommand", "postCreateCommand"],
        "startup": ["postStartCommand"],
    }
    assert found.hooks["install"] == {
        "onCreateCommand": "npm ci && npm run build // no comment",
        "updateContentCommand": "npm run 'a b'",
        "postCreateCommand": """sh -c 'make '"'"'it'"'"'' && sh -c 'echo '"'"'$HOME'"'"''""",
    }
    assert found.env == {"PLACE": "/workspace/b", "URL": "http://x//y"}
    assert {note.split(":")[0] for note in found.notes} == {
        "image", "features", "postAttachCommand", "initializeCommand", "forwardPorts", "somethingNew", "containerEnv",
        "remoteEnv",
    }  # fmt: skip
    assert "initializeCommand: it is for your machine, where nothing of a project is run" in found.notes


def test_an_image_that_was_made_by_the_file() -> None:
    """What its features say comes before what the project says; what was done by the build is not told."""
    image = json.dumps(
        {
            "metadata": [
                {"id": "r.example/a/node:1", "postCreateCommand": "npm ci", "postStartCommand": {"a": "x", "b": "y"}},
                {"id": "../../evil;x", "postCreateCommand": ["echo", "a b"], "remoteEnv": {"PLACE": "/a", "MORE": "1"}},
            ]
        }
    ).encode()
    found = Provisioning.parse(FILE, WHOLE, image)
    assert [*found.hooks["install"]] == [
        "onCreateCommand", "updateContentCommand", "postCreateCommand.1-node-1", "postCreateCommand.2-evil-x",
        "postCreateCommand",
    ]  # fmt: skip
    assert found.hooks["install"]["postCreateCommand.2-evil-x"] == "echo 'a b'"
    assert found.hooks["startup"] == {
        "postStartCommand.1-node-1": "sh -c x && sh -c y",
        "postStartCommand": "echo started",
    }
    assert found.env == {"PLACE": "/workspace/b", "MORE": "1", "URL": "http://x//y"}
    assert {"image", "features"}.isdisjoint(note.split(":")[0] for note in found.notes)
    for wrong in (b"", b"{}", b'{"metadata": 1}', b'{"metadata": [1]}', b'{"metadata": [{"postCreateCommand": 1}]}'):
        with pytest.raises(ValueError):  # noqa: PT011  whatever is wrong with it
            Provisioning.parse(FILE, WHOLE, wrong)


def test_variables_of_the_host_have_their_defaults() -> None:
    """No variable of the host is read: a default counts, and without one the variable is left out."""
    text = b'{"remoteEnv": {"A": "${localEnv:HOME:none}", "B": "${localEnv:HOME}"}, "privileged": true, "runArgs": []}'
    found = Provisioning.parse(FILE, text)
    assert found.env == {"A": "none"}
    assert [note.split(":")[0] for note in found.notes] == ["runArgs", "remoteEnv"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[]", "object"),
        (b"{", ""),
        (b"\xff", ""),
        (b'{"onCreateCommand": 1}', "onCreateCommand is not a command"),
        (b'{"onCreateCommand": [1]}', "onCreateCommand is not a command"),
        (b'{"postCreateCommand": {"a": {"b": "c"}}}', "a is not a command"),
        (b'{"containerEnv": []}', ""),
        (b'{"containerEnv": [1]}', "does not hold"),
        (b'{"containerEnv": {"A": 1}}', "A is not a text"),
        (b'{"containerEnv": {"A B": "c"}}', "not the name of a variable"),
        (b'{"containerEnv": {"A": "\\u0000"}}', "A is not a text"),
        (b'{"containerEnv": {"A": "\\ud800"}}', ""),
        (b'{"onCreateCommand": "' + b"x" * 5000 + b'"}', "onCreateCommand is not a text"),
        (b" " * 70_000, "more than 64 KiB"),
        (b"[" * 60_000, ""),
        (b"/*" * 30_000, ""),
        (b'"\\' * 30_000, ""),
        (b'{"a": "' + b"," * 60_000, ""),
        (b"," + b" " * 60_000, ""),
    ],
)
def test_files_that_are_wrong(text: bytes, says: str) -> None:
    """Whatever a guest has in it is one sentence, and soon."""
    if text == b'{"containerEnv": []}':
        assert Provisioning.parse(FILE, text) == Provisioning()
        return
    with pytest.raises(ValueError, match=says or None):
        Provisioning.parse(FILE, text)


@given(st.text(alphabet='"\\/*,]}[{: \n\ta1', max_size=60))
def test_comments_and_commas_change_no_text(text: str) -> None:
    """What is between the marks of a text stays, with comments and commas around it."""
    document = f'/* a */ {{"k": {json.dumps(text)}, // b\n "l": [{json.dumps(text)},], }} // c'
    assert json.loads(devjson.as_json(document)) == {"k": text, "l": [text]}
