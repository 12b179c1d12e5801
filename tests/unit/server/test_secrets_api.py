"""Secrets over the API and by the command line: what is answered, logged and printed never has a value."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shed.client.sync.api import Api
from shed.errors import ConflictError, NotFoundError, UsageError
from support.servers.running import Running
from support.servers.world import World

VALUE = "sk-a-value-that-nobody-may-see"


@pytest.fixture
def api(server: Running, world: World, monkeypatch: pytest.MonkeyPatch) -> Api:
    """A client of the server."""
    monkeypatch.setenv("SHED_RUNTIME_DIR", str(world.paths.run))
    monkeypatch.setenv("SHED_DATA_DIR", str(world.paths.data))
    return Api()


def shed(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command line against the server."""
    command = [sys.executable, "-m", "shed.cli.main", *words]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, env=os.environ)


def test_a_secret_from_its_making_to_its_end(api: Api) -> None:
    """It is listed with the sheds that have it, and removed when none has it, or by force."""
    api.set_secret("api-key", hosts=["api.example.com"], header="Authorization: Bearer {}", value=VALUE)
    made = api.create("dev", secrets=["api-key"])
    assert made["secrets"] == ["api-key"]
    (listed,) = api.secrets()["secrets"]
    assert listed == {
        "name": "api-key",
        "variable": "API_KEY",
        "hosts": ["api.example.com"],
        "header": "Authorization: Bearer {}",
        "methods": None,
        "paths": None,
        "source": "value",
        "sheds": ["dev"],
    }
    with pytest.raises(ConflictError, match="in use by dev") as caught:
        api.remove_secret("api-key")
    assert caught.value.code == "SECRET_IN_USE"
    api.remove_secret("api-key", force=True)
    assert api.secrets() == {"secrets": [], "warnings": []}
    assert "secrets" not in api.shed("dev")
    with pytest.raises(NotFoundError):
        api.remove_secret("api-key")


def test_no_value_is_answered_logged_or_found(api: Api, server: Running, world: World) -> None:
    """Whatever is done with it, right or wrong: it is in its file, and nowhere else."""
    answers: list[Any] = [api.set_secret("key", hosts=["a.example.com"], value=VALUE)]
    answers.append(api.create("dev", secrets=["key"]))
    answers.append(api.set_secret("key", value=f"{VALUE}-2"))
    answers += [api.secrets(), api.shed("dev"), api.change_secrets("dev", take=["key"]), api.logs("dev")]
    wrongs: tuple[dict[str, Any], ...] = (
        {"hosts": ["a.example.com"], "value": f"{VALUE}\n{VALUE}"},
        {"hosts": [VALUE, f"//{VALUE}"], "from_env": "X"},
        {"value": VALUE, "from_env": VALUE},
        {"hosts": ["a.example.com"], "value": [VALUE]},
        {"hosts": ["a.example.com"], "value": VALUE, "other": 1},
    )
    for wrong in wrongs:
        status, body = server.request("POST", "/api/secrets/key", json.dumps(wrong))
        assert status == 400, body
        if "hosts" not in wrong or VALUE not in wrong["hosts"]:
            answers.append(body.decode())
    status, body = server.request("POST", "/api/secrets/key", f'{{"value": "{VALUE}"')
    answers.append(body.decode())
    assert VALUE not in repr(answers)
    for path in world.paths.data.rglob("*"):
        if path.is_file() and path != world.paths.data / "secrets/key.json":
            assert VALUE.encode() not in path.read_bytes(), path
    assert any(record["action"] == "POST /api/secrets/{secret}" for record in server.audited())


def test_a_value_that_cannot_be_had_is_told_when_it_is_given(api: Api) -> None:
    """With what is wrong; the shed has the secret all the same."""
    api.set_secret("key", hosts=["a.example.com"], from_env="SHED_TEST_NO_SUCH")
    api.create("dev")
    changed = api.change_secrets("dev", give=["key"])
    assert (changed["secrets"], changed["complete"]) == (["key"], True)
    assert "no environment variable SHED_TEST_NO_SUCH" in changed["problems"][0]


def test_the_command_line(api: Api, tmp_path: Path) -> None:
    """A value comes by standard input, not by the command line; what is printed has none."""
    done = shed("secret", "set", "api-key", "--host", "api.example.com", "--method", "GET", stdin=f"{VALUE}\n".encode())
    assert done.returncode == 0, done.stderr
    assert b"API_KEY" in done.stdout
    stored = json.loads(next(Path(os.environ["SHED_DATA_DIR"]).glob("secrets/api-key.json")).read_text())
    assert stored["value"] == VALUE
    assert shed("create", "dev", "--secret", "api-key").returncode == 0
    listed = shed("secret", "ls")
    assert b"api.example.com" in listed.stdout
    assert b"dev" in listed.stdout
    assert VALUE.encode() not in done.stdout + done.stderr + listed.stdout
    empty = shed("secret", "set", "api-key", stdin=b"")
    assert (empty.returncode, b"is empty" in empty.stderr) == (2, True)
    (tmp_path / "key").write_text(VALUE)
    assert (
        shed("secret", "set", "other", "--host", "b.example.com", "--from-file", str(tmp_path / "key")).returncode == 0
    )
    assert b"dev has api-key, other" in shed("secret", "give", "dev", "other").stdout
    assert b"dev has no secret" in shed("secret", "take", "dev", "other", "api-key").stdout
    assert shed("secret", "rm", "api-key").returncode == 0


def test_a_terminal_shows_nothing_of_what_is_typed(api: Api) -> None:
    """The value is asked for, and not echoed."""
    pid, master = pty.fork()
    if pid == 0:
        os.execv(
            sys.executable, [sys.executable, "-m", "shed.cli.main", "secret", "set", "key", "--host", "a.example.com"]
        )
    shown = b""
    while b"value of key" not in shown:
        shown += os.read(master, 1000)
    os.write(master, f"{VALUE}\n".encode())
    with contextlib.suppress(OSError):  # the end of a terminal
        while True:
            shown += os.read(master, 1000)
    assert os.waitpid(pid, 0)[1] == 0, shown
    os.close(master)
    assert VALUE.encode() not in shown
    assert api.secrets()["secrets"][0]["name"] == "key"


def test_a_wrong_header_is_refused(api: Api) -> None:
    """One that HTTP needs itself, and one without a name."""
    for header in ("Host: {}", "Bearer {}", "Authorization: Bearer"):
        with pytest.raises(UsageError) as caught:
            api.set_secret("key", hosts=["a.example.com"], header=header, value=VALUE)
        assert caught.value.code == "INVALID_SECRET"
