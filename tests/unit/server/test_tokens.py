"""The files of tokens, and a server that cannot use them."""

import hashlib
import json
import logging
from pathlib import Path

import pytest

from shed.api.access import Right
from shed.errors import DataError
from shed.server import audit as audit_module
from shed.server.audit import Audit
from shed.server.caller import Caller
from shed.server.tokens import Tokens

HASH = hashlib.sha256(b"shed_secret").hexdigest()


def test_tokens_survive_the_server(tmp_path: Path) -> None:
    """And so does what they may do."""
    Tokens(tmp_path).add("ci", Right.USE, HASH)
    caller = Tokens(tmp_path).caller("shed_secret")
    assert caller == Caller("token", "ci", Right.USE)
    assert Tokens(tmp_path).caller("shed_other") is None


def test_the_own_token_is_made_once(tmp_path: Path) -> None:
    """A second server of the same data goes on with it; it is nobody's before a server takes it."""
    secret = Tokens(tmp_path).own()
    again = Tokens(tmp_path)
    assert again.caller(secret) is None
    assert again.own() == secret
    assert again.caller(secret) == Caller("token", "local", Right.ADMIN)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_an_own_token_that_others_know_is_not_used(tmp_path: Path, mode: int) -> None:
    """The server says what to do, rather than to let them in."""
    Tokens(tmp_path).own()
    (tmp_path / "token").chmod(mode)
    with pytest.raises(DataError, match="known to others") as caught:
        Tokens(tmp_path).own()
    assert "remove it" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"tokens": 1}',
        '{"tokens": [1]}',
        '{"tokens": [{"name": "a"}]}',
        json.dumps({"tokens": [{"name": "a", "right": "root", "sha256": HASH, "created_at": "x"}]}),
        json.dumps({"tokens": [{"name": "a", "right": "use", "sha256": "12", "created_at": "x"}]}),
        json.dumps({"tokens": [{"name": "local", "right": "use", "sha256": HASH, "created_at": "x"}]}),
        json.dumps(
            {"tokens": [{"name": "a", "right": "use", "sha256": HASH, "created_at": "x", "expires_at": "never"}]}
        ),
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    """Nobody is let in by half a list."""
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(DataError, match=r"tokens\.json is damaged"):
        Tokens(tmp_path)


def test_the_audit_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older files go, and all of them are private."""
    monkeypatch.setattr(audit_module, "FILE_SIZE", 2000)
    audit = Audit(tmp_path)
    for number in range(200):
        audit.record({"kind": "user"}, "x" * 100, number=number)
    audit.close()
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [
        "audit.log",
        *(f"audit.log.{number}" for number in range(1, audit_module.FILES + 1)),
    ]
    assert all(path.stat().st_size <= 2000 and path.stat().st_mode & 0o777 == 0o600 for path in files)
    assert json.loads(files[0].read_text().splitlines()[-1])["number"] == 199


def test_what_cannot_be_recorded_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And the work goes on."""
    audit = Audit(tmp_path / "nowhere")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            audit.begin(Caller("user", "ann", Right.ADMIN), "GET /api/info").end(200)
    assert len([record for record in caplog.records if "audit log" in record.getMessage()]) == 1
