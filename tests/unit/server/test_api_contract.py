"""The wire contract: the table, its schemas, how requests are decoded, and what old clients still may say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from shed.api import endpoints, making, sheds
from shed.api.base import API_VERSION, Answer, Body, Params
from shed.api.decoding import decode
from shed.api.endpoint import Endpoint
from shed.api.endpoints import ENDPOINTS
from shed.api.openapi import answer_schema, document
from shed.backends.base import SHARE_MODES
from shed.errors import UsageError
from shed.server.routes import ROUTES
from support.servers.running import Running

ROOT = Path(__file__).parents[3]
BY_NAME = {endpoint.name: endpoint for endpoint in ENDPOINTS}


def generator() -> ModuleType:
    """Return the program that writes the page."""
    spec = importlib.util.spec_from_file_location("api_reference", ROOT / "scripts/api_reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_table_says() -> None:
    """Write it anew with `make reference` when this fails."""
    made = generator()
    assert made.PAGE.read_text() == made.page()
    assert all(f"\n### `{endpoint.method} {endpoint.path}`\n" in made.page() for endpoint in ENDPOINTS)


def test_each_endpoint_has_one_handler() -> None:
    """The table and the routes are of the same endpoints."""
    assert sorted(route.endpoint.name for route in ROUTES) == sorted(BY_NAME)


def test_the_document_is_openapi() -> None:
    """All endpoints by their paths, all references lead somewhere, and each schema is JSON Schema."""
    about = document()
    assert about["openapi"] == "3.1.0"
    operations = [(path, method) for path, item in about["paths"].items() for method in item]
    known = [(e.path, e.method.lower()) for e in ENDPOINTS]
    assert {*operations} == {*known, *((e.old_path, e.method.lower()) for e in ENDPOINTS if e.old_path)}
    names = [item["operationId"] for path in about["paths"].values() for item in path.values()]
    assert len(names) == len(set(names))
    schemas = about["components"]["schemas"]
    for reference in _references(about):
        assert reference.removeprefix("#/components/schemas/") in schemas
    for schema in schemas.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def _references(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in _references(inner)]
    return [found for inner in value for found in _references(inner)] if isinstance(value, list) else []


def test_each_member_is_described() -> None:
    """And each struct: the page and the document have no gaps."""
    for name, schema in document()["components"]["schemas"].items():
        assert schema["description"], name
        for member, about in schema["properties"].items():
            assert about.get("description"), f"{name}.{member}"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_requests_are_strict_and_answers_lenient(endpoint: Endpoint[Any, Any, Any]) -> None:
    """An unknown member of a request is refused; of an answer it is ignored, and what is missing has a default."""
    assert issubclass(endpoint.params, Params)
    assert issubclass(endpoint.body, Body)
    assert endpoint.params.__struct_config__.forbid_unknown_fields
    assert endpoint.body.__struct_config__.forbid_unknown_fields
    if isinstance(endpoint.answer, type) and issubclass(endpoint.answer, msgspec.Struct):
        assert issubclass(endpoint.answer, Answer)
        assert msgspec.json.decode(b'{"member_of_tomorrow": 1}', type=endpoint.answer) == endpoint.answer()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_paths_and_old_spellings_name_members(endpoint: Endpoint[Any, Any, Any]) -> None:
    """What is in braces, and what an old spelling means, is a member of the endpoint."""
    members = {*endpoint.params.__struct_fields__, *endpoint.body.__struct_fields__}
    in_path = {part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")}
    assert in_path <= {*endpoint.params.__struct_fields__}
    assert {old.member for old in endpoint.old} <= members
    assert not {*endpoint.params.__struct_fields__} & {*endpoint.body.__struct_fields__}


def asked(endpoint: str, /, query: dict[str, str] | None = None, body: object = None, **path: str) -> tuple[Any, Any]:
    """Decode a request to the endpoint `name`."""
    return decode(BY_NAME[endpoint], path, query or {}, b"" if body is None else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "message", "hint", "code"),
    [
        ({"nam": "a"}, "unknown member 'nam'", "did you mean 'name'?", "INVALID_REQUEST"),
        ({"name": "a", "zzz": 1}, "unknown member 'zzz'", "known are name, image, ", "INVALID_REQUEST"),
        ({}, "name is missing", "send it as the member 'name'", "INVALID_REQUEST"),
        ({"name": None}, "name is missing", "send it as the member 'name'", "INVALID_REQUEST"),
        ({"name": 1}, "name must be text", "it is 1", "INVALID_REQUEST"),
        ({"name": "a", "cpus": "2"}, "cpus must be a whole number", "it is '2'", "INVALID_REQUEST"),
        ({"name": "a", "cpus": True}, "cpus must be a whole number", "it is True", "INVALID_REQUEST"),
        ({"name": "a", "cold": "x" * 99}, "cold must be true or false", f"it is '{'x' * 39}…'", "INVALID_REQUEST"),
        (
            {"name": "a", "local_dir_mode": "wild"},
            "local_dir_mode must be one of git-rw, ro, rw",
            "it is 'wild'",
            "INVALID_LOCAL_DIR_MODE",
        ),
        ([1], "the body of the request is not a JSON object", 'send {"key": value, …}', "INVALID_REQUEST"),
    ],
)
def test_what_is_wrong_with_a_body_is_told_by_member(body: object, message: str, hint: str, code: str) -> None:
    """With what is expected, what there was, and the nearest name."""
    with pytest.raises(UsageError) as caught:
        asked("create_shed", body=body)
    assert (caught.value.message, caught.value.code) == (message, code)
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("name", "query", "message"),
    [
        ("shed_logs", {"tail": "x"}, "tail must be a whole number from 0 to 1000000000"),
        ("shed_logs", {"tail": "-1"}, "tail must be a whole number from 0 to 1000000000"),
        ("shed_logs", {"tail": "1e3"}, "tail must be a whole number from 0 to 1000000000"),
        ("shed_logs", {"tail": "9" * 19}, "tail must be a whole number from 0 to 1000000000"),
        ("shed_logs", {"name": "other"}, "unknown member 'name' of the query"),
        ("delete_shed", {"force": "maybe"}, "force must be true or false"),
        ("delete_shed", {"progress": "all"}, "progress must be blob"),
        ("delete_shed", {"dry_run": "true"}, "unknown member 'dry_run' of the query"),
        ("list_sheds", {"all": "1"}, "unknown member 'all' of the query"),
        ("inspect_image", {}, "image is missing"),
        ("prune_images", {"dryrun": "true"}, "unknown member 'dryrun' of the query"),
    ],
)
def test_what_is_wrong_with_a_query_is_told_by_member(name: str, query: dict[str, str], message: str) -> None:
    """Nothing in it is ignored."""
    with pytest.raises(UsageError) as caught:
        asked(name, query, name="dev") if "{name}" in BY_NAME[name].path else asked(name, query)
    assert caught.value.message == message


def test_null_is_as_good_as_absent() -> None:
    """As clients send for what their user left open."""
    wanted = asked("create_shed", body={"name": "a", "image": None, "cpus": None, "cold": None})[1]
    assert wanted == making.CreateShed(name="a")
    assert asked("prune", body={"until_seconds": None, "logs": True})[1].until_seconds is None


@pytest.mark.parametrize(
    ("name", "query", "body", "member", "value"),
    [
        ("start_shed", {"cold": "true"}, None, "cold", True),
        ("start_shed", {"force": "true"}, None, "force", True),
        ("start_shed", {}, {"cold": True}, "cold", True),
        ("prune_images", {"dry_run": "true"}, None, "dry_run", True),
        ("prune_images", {"dry_run": "false"}, None, "dry_run", False),
        ("pull_image", {}, {"docker_ref": "a/b"}, "image", "a/b"),
        ("push_image", {}, {"source": "a", "destination": "b/c"}, "image", "a"),
        ("tag_image", {}, {"source": "a", "name": "b"}, "name", "b"),
        ("tag_image", {}, {"source": "a", "target": "b"}, "name", "b"),
        ("trust_image", {}, {"ref": "a"}, "image", "a"),
        ("verify_image", {}, {"ref": "a", "deep": True}, "image", "a"),
    ],
)
def test_old_spellings_are_understood(
    name: str, query: dict[str, str], body: object, member: str, value: object
) -> None:
    """Those of v0.5.2, and of the reference's clients."""
    path = {"name": "dev"} if "{name}" in BY_NAME[name].path else {}
    assert getattr(asked(name, query, body, **path)[1], member) == value


def test_an_image_has_been_called_ref() -> None:
    """In the query, and in the path."""
    for name in ("inspect_image", "image_history", "remove_image"):
        assert asked(name, {"ref": "a/b:c"})[0].image == "a/b:c"
    for name in ("inspect_image", "remove_image"):
        assert asked(name, ref="a/b:c")[0].image == "a/b:c"


def test_an_old_and_a_new_spelling_at_once_are_refused() -> None:
    """Nobody can say which one is meant."""
    with pytest.raises(UsageError, match="image is there twice"):
        asked("pull_image", body={"docker_ref": "a", "image": "b"})
    with pytest.raises(UsageError, match="dry_run is there twice"):
        asked("prune_images", {"dry_run": "true"}, {"dry_run": False})
    with pytest.raises(UsageError, match="dry_run must be true or false"):
        asked("prune_images", {"dry_run": "perhaps"})


def test_the_schema_of_an_answer_is_closed() -> None:
    """So that the tests see a member that is not in the contract, and one that is missing."""
    validator = jsonschema_rs.validator_for(answer_schema(sheds.ShedList))
    shed = {
        "name": "a",
        "status": "running",
        "created_at": "2026-01-01T00:00:00Z",
        "image": "base",
        "image_digest": "sha256:0",
        "backend": "qemu",
    }
    assert validator.is_valid({"sheds": [shed], "warnings": []})
    assert not validator.is_valid({"sheds": [{**shed, "extra": 1}], "warnings": []})
    assert not validator.is_valid({"sheds": [{**shed, "cpus": "2"}], "warnings": []})
    assert not validator.is_valid({"sheds": [{k: v for k, v in shed.items() if k != "status"}], "warnings": []})


def test_modes_are_those_of_the_backends() -> None:
    """Written once here, and once there."""
    (modes,) = (
        schema["enum"]
        for schema in document()["components"]["schemas"]["CreateShed"]["properties"]["local_dir_mode"]["anyOf"]
        if "enum" in schema
    )
    assert sorted(modes) == sorted(SHARE_MODES)


def test_a_server_tells_its_version_and_refuses_who_needs_a_newer_one(quiet: Running) -> None:
    """In each answer, and in info; a client that needs at most this version is served."""
    assert json.loads(quiet.request("GET", "/api/info")[1])["api_version"] == API_VERSION
    for version, status in (("1", 200), (f"{API_VERSION}", 200), (f"{API_VERSION + 1}", 400), ("new", 400)):
        got, body = quiet.request("GET", "/api/sheds", Shed_Api_Version=version)
        assert got == status
        if version == f"{API_VERSION + 1}":
            assert json.loads(body)["error"]["code"] == "API_TOO_OLD"
    with quiet.connect() as client:
        client.sendall(b"GET /api/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with client.makefile("rb") as reader:
            assert f"\r\nShed-Api-Version: {API_VERSION}\r\n".encode() in reader.read()


def test_a_server_describes_itself(quiet: Running) -> None:
    """As the table has it."""
    status, body = quiet.request("GET", "/api/openapi.json")
    assert status == 200
    assert json.loads(body) == json.loads(json.dumps(document()))


def test_old_spellings_over_http(quiet: Running) -> None:
    """A client of v0.5.2 is answered as before; the audit log has the path that it used."""
    assert quiet.request("POST", "/api/images/prune?dry_run=true")[0] == 200
    assert json.loads(quiet.request("GET", "/api/images/inspect/none")[1])["error"]["code"] == "IMAGE_NOT_FOUND"
    assert json.loads(quiet.request("GET", "/api/images/inspect?ref=none")[1])["error"]["code"] == "IMAGE_NOT_FOUND"
    actions = {record["action"] for record in quiet.audited()}
    assert {"GET /api/images/inspect/{ref}", "GET /api/images/inspect"} <= actions


def test_what_is_not_in_the_contract_does_not_go_out(quiet: Running) -> None:
    """The servers of the tests are held to the contract: a broken one would be told here."""
    assert endpoints.LIST_SHEDS.answer is sheds.ShedList
    status, body = quiet.request("GET", "/api/sheds")
    assert (status, json.loads(body)) == (200, {"sheds": [], "warnings": []})
