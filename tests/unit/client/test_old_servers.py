"""A server of v0.5.2 reads switches from the query, and does the opposite of what a body asks without a word."""

import json
from pathlib import Path

import pytest

from shed.client.sync.api import Api
from support.servers.scripted_server import Conversation, ScriptedServer


@pytest.mark.parametrize(("call", "target"), [
    (lambda api: api.prune_images(dry_run=True), "/api/images/prune?dry_run=true"),
    (lambda api: api.prune_images(), "/api/images/prune"),
    (lambda api: api.start("dev", cold=True, force=True), "/api/sheds/dev/start?cold=true&force=true"),
    (lambda api: api.start("dev"), "/api/sheds/dev/start"),
])  # fmt: skip
def test_switches_are_where_an_old_server_looks(call: object, target: str, tmp_path: Path) -> None:
    """In the query, and nothing is in the body."""
    seen = []

    def script(conversation: Conversation) -> None:
        seen.append((conversation.request.removeprefix("POST "), conversation.body))
        conversation.answer(200, json.dumps({"name": "dev"}).encode())

    with ScriptedServer(tmp_path / "s.sock", script):
        call(Api(f"unix://{tmp_path}/s.sock"))  # type: ignore[operator]
    assert seen == [(target, b"")]
