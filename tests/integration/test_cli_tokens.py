"""`shed token` and the servers that are reached over HTTP, as a user meets them: a real server with fake VMs, on
TCP.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ports import free_port
from support.servers.running import Running
from support.servers.world import World

SHED = [sys.executable, "-m", "shed.cli.main"]


class Host:
    """A server on TCP; `shed` is run by its own user, or by a user who has nothing but the port."""

    def __init__(self, root: Path) -> None:
        self.port = free_port()
        (root / "port").write_text(str(self.port))
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = Running(World(root))
        self.root = root
        self.environment = {key: value for key, value in os.environ.items() if key not in {"SHED_SERVER", "SHED_TOKEN"}}

    def shed(
        self, *words: str, user: str = "owner", code: int = 0, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `shed` for a user."""
        home = self.root / user
        home.mkdir(exist_ok=True)
        run = self.root / "run" if user == "owner" else home / "run"
        env = {
            **self.environment,
            "HOME": str(home),
            "SHED_RUNTIME_DIR": str(run),
            "SHED_DATA_DIR": str(home / "data"),
            **environment,
        }
        done = subprocess.run(
            [*SHED, *words], env=env, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One server for all."""
    host = Host(tmp_path_factory.mktemp("tokens"))
    yield host
    host.server.world.kill_machines()
    host.server.end()


def test_the_owner_needs_no_token_for_their_own_port(host: Host) -> None:
    """Everything by HTTP goes on as it did."""
    assert host.shed("-s", host.url, "create", "mine").returncode == 0
    assert host.shed("-s", host.url, "ls", "-q").stdout == "mine\n"
    assert host.shed("-s", host.url, "exec", "mine", "--", "true").returncode == 0
    host.shed("-s", host.url, "delete", "--force", "mine")


def test_the_upgrade_path_is_one_sentence(host: Host) -> None:
    """Whoever relied on a port without a token reads what to do."""
    refused = host.shed("-s", host.url, "ls", user="other", code=1).stderr
    assert "asks for a token" in refused
    assert "shed token create NAME" in refused
    assert "SHED_TOKEN" in refused
    assert (
        "asks for a token"
        in host.shed("server", "add", "127.0.0.1", "-p", str(host.port), "-n", "lab", user="other", code=1).stderr
    )
    assert "asks for a token" in host.shed("-s", host.url, "exec", "x", "--", "true", user="other", code=125).stderr


def test_a_token_for_somebody_else(host: Host) -> None:
    """Made, kept by `server add`, used by every command, revoked, and gone with the server."""
    made = host.shed("token", "create", "other")
    token = made.stdout.strip()
    assert made.stdout == f"{token}\n"
    assert token.startswith("shed_")
    (host.root / "token-file").write_text(made.stdout)
    added = host.shed(
        "server", "add", host.url, "-n", "lab", "--token-file", str(host.root / "token-file"), user="other"
    )
    assert token not in added.stdout + added.stderr + (host.root / "other/.shed/config.state.json").read_text()
    assert (host.root / "other/.shed/tokens").stat().st_mode & 0o777 == 0o600
    host.shed("create", "theirs", user="other")
    assert host.shed("exec", "theirs", "--", "true", user="other").returncode == 0
    assert host.shed("ls", "-q", user="other").stdout == "theirs\n"
    refused = host.shed("create", "more", "--local-dir", str(host.root), user="other", code=1)
    assert "needs the right 'admin'; the token 'other' has 'use'" in refused.stderr
    assert json.loads(host.shed("token", "list", "--json").stdout)[0]["name"] == "other"
    assert host.shed("token", "list").stdout.splitlines()[1].split()[:2] == ["other", "use"]
    host.shed("token", "revoke", "other")
    assert "not one of this server's" in host.shed("ls", user="other", code=1).stderr
    host.shed("server", "remove", "lab", user="other")
    assert token not in (host.root / "other/.shed/tokens").read_text()
    host.shed("delete", "--force", "theirs")


def test_a_token_from_the_environment_or_standard_input(host: Host) -> None:
    """As programs in CI have them."""
    token = json.loads(host.shed("token", "create", "ci", "--right", "read", "--expires", "1h", "--json").stdout)[
        "token"
    ]
    assert host.shed("-s", host.url, "ls", "-q", user="ci", SHED_TOKEN=token).stdout == ""
    assert (
        "needs the right 'use'" in host.shed("-s", host.url, "create", "x", user="ci", code=1, SHED_TOKEN=token).stderr
    )
    host.shed("server", "add", host.url, "-n", "lab", "--token-file", "-", user="ci", stdin=token)
    assert host.shed("ls", "-q", user="ci").stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["token", "create", "a b"], "invalid token name"),
        (["token", "create", "local"], "invalid token name"),
        (["token", "create", "x", "--right", "root"], "--right must be read, use or admin"),
        (["token", "create", "x", "--expires", "soon"], "is not a time"),
        (["server", "add", "127.0.0.1", "-p", "1", "--token-file", "/nowhere"], "cannot read the token"),
        (["server", "add", "127.0.0.1", "-p", "1", "--token-file", "-"], "does not hold one token"),
        (["server", "add", "ssh://lab", "--token-file", "-"], "needs no token"),
    ],
)
def test_wrong_words(host: Host, words: list[str], said: str) -> None:
    """One sentence each."""
    assert said in host.shed(*words, code=2).stderr
