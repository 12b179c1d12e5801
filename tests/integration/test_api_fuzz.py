"""The API of a real server process, on the fake backend, against its own OpenAPI document: schemathesis makes requests
that the document allows, and such as it does not.

None ends in an internal error, each answer is one that the document describes, and what the document forbids is
refused.  `SHED_FUZZ_SECONDS` asks for longer, random runs, so many seconds for each operation.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from shed.api import endpoints
from shed.api.openapi import document
from support.fuzz import fuzz
from support.ports import free_port
from support.servers.running import Running
from support.servers.world import World

SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = {each.ok().definition.raw["operationId"]: each.ok() for each in SCHEMA.get_all_operations()}  # type: ignore[union-attr]
CONFORM = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
ANY_TEXT = {"inspect_image_by_path", "remove_image_by_path", "remove_ssh_key"}
"""Operations whose one parameter may be any text."""
SLOW, FEW = {"pull_image", "push_image", "pull_snapshot", "push_snapshot", "create_shed", "create_prebuild"}, 3
UPGRADE_REQUIRED = 426
NOWHERE = "127.0.0.1:1"
"""A registry where nobody listens: nothing here asks another machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that listens on TCP, too."""
    root = tmp_path_factory.mktemp("fuzz")
    port = free_port()
    (root / "port").write_text(str(port))
    running = Running(World(root))
    deadline = time.monotonic() + 60
    while not (_listens(port) and (running.world.paths.data / "token").exists()):
        assert time.monotonic() < deadline, f"the server does not listen on port {port}"
        time.sleep(0.01)
    yield running
    running.world.kill_machines()
    running.end()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return not client.connect_ex(("127.0.0.1", port))


def test_all_operations_are_here() -> None:
    """Schemathesis understands the whole document."""
    assert len(OPERATIONS) == sum(len(item) for item in document()["paths"].values())


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_whatever_is_asked_is_answered_as_the_document_says(server: Running, name: str, mode: GenerationMode) -> None:
    """Also by events, and about a shed that exists."""
    operation = OPERATIONS[name]
    open_ended = name in ANY_TEXT or not (operation.query or operation.path_parameters or operation.body)
    if mode is GenerationMode.NEGATIVE and open_ended:
        pytest.skip("nothing in it can be wrong")
    port = (server.world.paths.data.parent / "port").read_text()
    token = server.secret()

    def check(drawn: tuple[Any, bool, bool]) -> None:
        case, events, existing = drawn
        if existing and isinstance(case.path_parameters.get("name"), str) and mode is GenerationMode.POSITIVE:
            case.path_parameters["name"] = "dev"
            server.request("POST", "/api/sheds", '{"name": "dev"}')
        _stay_here(name, case)
        followed = events and name != endpoints.LIST_EVENTS.name  # that one never ends
        headers = {"Authorization": f"Bearer {token}", **({"Accept": "text/event-stream"} if followed else {})}
        response = case.call(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)
        _look(response.status_code, response.text)
        wanted = [*CONFORM]
        if mode is GenerationMode.NEGATIVE and response.status_code != UPGRADE_REQUIRED:
            wanted.append(checks.negative_data_rejection)
        case.validate_response(response, checks=wanted, headers=headers)
        _forget(server, name, case)

    drawn = st.tuples(operation.as_strategy(generation_mode=mode), st.booleans(), st.booleans())
    fuzz(check, drawn, examples=FEW if name in SLOW else 12)
    assert server.request("GET", "/api/info")[0] == 200


def _look(status: int, text: str) -> None:
    """Fail for what must not happen, whether it is told by the status or by an event."""
    assert status < 500 or json.loads(text)["error"]["code"] not in {"INTERNAL", "CONTRACT_BROKEN"}, text
    assert '"code":"INTERNAL"' not in text
    assert "CONTRACT_BROKEN" not in text


def _stay_here(name: str, case: Any) -> None:
    """Have a request name no registry but the one that is not there, and no command: fake guests run them here."""
    if name == "create_prebuild" and isinstance(case.body, dict) and isinstance(case.body.get("commands"), list):
        case.body["commands"] = ["true" if isinstance(each, str) else each for each in case.body["commands"][:3]]
    if name in {"pull_image", "push_image", "pull_snapshot", "push_snapshot"} and isinstance(case.body, dict):
        for member in ("image", "docker_ref", "destination", "reference"):
            text = case.body.get(member)
            if isinstance(text, str) and text:
                case.body[member] = f"{NOWHERE}/{re.sub('[^a-z0-9]', '', text) or 'x'}:x"


def _forget(server: Running, name: str, case: Any) -> None:
    """Delete the shed that a request may have made."""
    if name in {"create_shed", "create_prebuild"} and isinstance(case.body, dict):
        shed = case.body if name == "create_shed" else case.body.get("shed")
        made = shed.get("name") if isinstance(shed, dict) else None
        if isinstance(made, str) and re.fullmatch("[a-z0-9-]+", made):
            kind = "sheds" if name == "create_shed" else "prebuilds"
            server.request("DELETE", f"/api/{kind}/{made}" + ("?force=true" if kind == "sheds" else ""))


def test_a_wrong_answer_would_be_seen(tmp_path: Path) -> None:
    """The checks are not blind: a broken answer is told as one."""
    with pytest.raises(AssertionError, match="CONTRACT_BROKEN"):
        _look(500, json.dumps({"error": {"code": "CONTRACT_BROKEN", "message": "x"}}))
    with pytest.raises(AssertionError):
        _look(200, 'event: error\ndata: {"code":"INTERNAL","message":"x"}\n\n')
