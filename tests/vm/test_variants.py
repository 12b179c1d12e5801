"""The published images with systemd, in real VMs: the agent is there before the init is done, and what is promised
works.
"""

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.vms.machine import Machine
from support.vms.templates import EITHER
from support.waiting import wait_until

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]
_SECONDS = 240
"""Most that a boot to its end may take on a busy machine with an emulated CPU."""


@pytest.fixture
def machine(way: str, variant_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the images extensions and full."""
    copy_store(variant_store, tmp_path / "data/images")
    made = Machine(tmp_path, way=way)
    yield made
    made.end()


@pytest.fixture(scope="module")
def full(way: str, variant_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the shed dev of the image full."""
    folder = tmp_path_factory.mktemp("full")
    copy_store(variant_store, folder / "data/images")
    made = Machine(folder, way=way)
    made.shed("create", "dev", "--image", "full")
    yield made
    made.end()


def sh(machine: Machine, name: str, script: str) -> str:
    """Run a shell script in a shed, which must succeed, and return what it prints."""
    return machine.shed("exec", name, "--", "sh", "-ec", script)


def system_state(machine: Machine, name: str) -> str:
    """Return what systemd says of itself; empty while it does not answer."""
    return machine.try_shed("exec", name, "--", "systemctl", "is-system-running").stdout.decode().strip()


def await_systemd(machine: Machine, name: str) -> str:
    """Wait until systemd says that all is started, or what failed; return its word."""
    under_way = ("", "offline", "initializing", "starting")
    state = wait_until(
        lambda: state if (state := system_state(machine, name)) not in under_way else "",
        what="systemd has started all",
        seen=machine.consoles,
        seconds=_SECONDS,
    )
    failed = sh(machine, name, "systemctl --failed --no-legend --plain")
    assert not failed, failed + machine.consoles()
    return state


def host_keys(machine: Machine, name: str) -> set[str]:
    """Return the fingerprints that the ssh server shows to whoever connects."""
    shown = sh(machine, name, "ssh-keyscan -q localhost 2>/dev/null | ssh-keygen -lf -")
    return set(re.findall(r"SHA256:\S+", shown))


def test_systemd_starts_behind_the_agent(machine: Machine) -> None:
    """Two sheds of one image: commands run before systemd is up, and can wait for it; nothing fails, each has its own
    identity, and a restart keeps it.
    """
    machine.shed("create", "one", "--image", "extensions")
    assert sh(machine, "one", "touch /tmp/early; systemctl is-system-running || true") not in (
        "running\n",
        "degraded\n",
    )
    machine.shed("create", "two", "--image", "extensions", "--cold")
    machine.way = EITHER
    for name in ("one", "two"):
        assert sh(machine, name, "systemctl is-system-running --wait") == "running\n"
        assert await_systemd(machine, name) == "running"
        assert sh(machine, name, "cat /proc/1/comm; cat /etc/hostname; sudo -n id -u") == f"systemd\n{name}\n0\n"
        assert sh(machine, name, "systemctl is-active ssh dbus systemd-journald") == "active\nactive\nactive\n"
    sh(machine, "one", "test -e /tmp/early")
    restarts = sh(machine, "one", "systemctl show -p NRestarts --value ssh")
    assert restarts == "0\n", "its keys were there when it started"
    keys = {name: host_keys(machine, name) for name in ("one", "two")}
    assert len(keys["one"]) == 3
    assert not keys["one"] & keys["two"]
    ids = {name: sh(machine, name, "cat /etc/machine-id") for name in ("one", "two")}
    assert ids["one"] != ids["two"]
    machine.shed("delete", "--force", "two")

    assert b"killed" not in machine.try_shed("stop", "one").stderr
    machine.shed("start", "one")
    assert await_systemd(machine, "one") == "running"
    assert host_keys(machine, "one") == keys["one"]
    assert sh(machine, "one", "cat /etc/machine-id") == ids["one"]


def test_the_full_image_builds_and_runs_containers(full: Machine) -> None:
    """A C program, Node.js, Python and its packages, search tools; containers with a network of their own, as root and
    as the user.
    """
    program = "int main(void) { return 7; }"
    assert sh(full, "dev", f"cd /tmp; echo '{program}' > a.c; gcc -o a a.c; ./a || echo $?") == "7\n"
    assert sh(full, "dev", "node -e 'console.log(6 * 7)'") == "42\n"
    assert sh(full, "dev", "python -m venv --without-pip /tmp/v; /tmp/v/bin/python -c 'print(6 * 7)'") == "42\n"
    assert sh(full, "dev", "cd /tmp; rg -l 'return 7' a.c; fd -e c . .") == "a.c\n./a.c\n"
    for tool in (
        "npm",
        "pip",
        "pipx",
        "nano",
        "cmake",
        "pkg-config",
        "gh",
        "git-lfs",
        "sqlite3",
        "shellcheck",
        "strace",
        "vim",
        "docker",
    ):
        assert sh(full, "dev", f"command -v {tool}").endswith(f"/{tool}\n")
    await_systemd(full, "dev")
    sh(
        full,
        "dev",
        "mkdir -p /tmp/root/bin; cp /run/shed-runtime/bin/busybox /tmp/root/bin; cd /tmp/root/bin; "
        "ln -sf busybox sh; ln -sf busybox ip",
    )
    for become, address in (("sudo -n", "10.88."), ("", "10.0.2.")):
        run = (
            f"tar -C /tmp/root -c . | {become} podman import -q - tiny >/dev/null; {become} podman run --rm tiny "
            "/bin/sh -c 'ip -4 addr'"
        )
        assert address in sh(full, "dev", run)


WHEEL = """
import zipfile
with zipfile.ZipFile("/tmp/greet-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greet.py", "def main(): print('hello by pip')")
    info = "greet-1.dist-info"
    wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: greet\\nVersion: 1\\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\\ngreet = greet:main\\n")
    wheel.writestr(f"{info}/RECORD", "")
"""
NPM = """
mkdir /tmp/wave; cd /tmp/wave
echo '{"name": "wave", "version": "1.0.0", "bin": {"wave": "w.js"}}' >package.json
printf '#!/usr/bin/env node\\nconsole.log("hello by npm")\\n' >w.js
npm install --global --offline --no-audit --no-fund --no-update-notifier "$(npm pack --silent)"
"""
COMPOSE = """
services:
  web:
    image: localhost/tiny
    command: /bin/httpd -f -p 8080 -h /www
    volumes: ["/tmp/www:/www"]
  client:
    image: localhost/tiny
    depends_on: [web]
    command: /bin/sh -c "until /bin/wget -q -O - http://web:8080/; do /bin/sleep 0.2; done"
"""


def test_an_ordinary_user_of_the_full_image_installs_and_composes(full: Machine) -> None:
    """What pip and npm install is found by commands, logins and root; `docker compose` has services find each other."""
    full.try_shed("exec", "dev", "--", "python", "-c", WHEEL)
    sh(full, "dev", "pip install --no-index /tmp/greet-1-py3-none-any.whl")
    sh(full, "dev", NPM)
    for words in (
        ["exec", "dev", "--", "greet"],
        ["exec", "dev", "--", "bash", "-lc", "greet"],
        ["exec", "dev", "-u", "root", "--", "greet"],
        ["exec", "dev", "--", "sudo", "-n", "greet"],
    ):
        assert full.shed(*words) == "hello by pip\n"
        assert full.shed(*words[:-1], words[-1].replace("greet", "wave")) == "hello by npm\n"
    assert sh(full, "dev", "echo $PATH").startswith("/home/shed/.local/bin:")
    await_systemd(full, "dev")
    sh(full, "dev", "mkdir -p /tmp/root/bin /tmp/www; echo composed >/tmp/www/index.html")
    sh(
        full,
        "dev",
        "cd /tmp/root/bin; cp /run/shed-runtime/bin/busybox .; for t in sh sleep wget httpd; "
        "do ln -sf busybox $t; done",
    )
    sh(
        full,
        "dev",
        f"tar -C /tmp/root -c . | docker import -q - localhost/tiny; echo '{COMPOSE}' >/tmp/compose.yaml",
    )
    sh(full, "dev", "cd /tmp; docker compose up -d; docker wait tmp_client_1")
    assert sh(full, "dev", "cd /tmp; docker compose logs client").endswith("composed\n")
    sh(full, "dev", "cd /tmp; docker compose down -t 0")


WRITER = """
import sqlite3
database = sqlite3.connect("/home/shed/log.db", isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
database.execute("PRAGMA synchronous=FULL")
database.execute("CREATE TABLE log (number INTEGER PRIMARY KEY, text TEXT)")
number = 0
while True:
    number += 1
    database.execute("INSERT INTO log VALUES (?, ?)", (number, "x" * (number % 4000)))
    print(number, flush=True)
"""
CHECK = """
import sqlite3
database = sqlite3.connect("/home/shed/log.db", timeout=60)
print(database.execute("PRAGMA integrity_check").fetchone()[0])
print(*database.execute("SELECT count(*), max(number) FROM log").fetchone())
"""


def test_a_database_under_load_is_kept_whole(full: Machine) -> None:
    """SQLite in a snapshot has all that it had acknowledged before, for those who go on and those who boot its disk.

    `SHED_TEST_ROUNDS` asks for more snapshots.
    """
    with full.start("exec", "dev", "--", "python", "-uc", WRITER) as writer:
        acknowledged = [0]

        def read() -> None:
            assert writer.stdout is not None
            for line in writer.stdout:
                acknowledged[0] = int(line)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(int(os.environ.get("SHED_TEST_ROUNDS", "2"))):
            before = acknowledged[0]
            wait_until(lambda before=before: acknowledged[0] > before, what="the database grows")  # type: ignore[misc]
            least = acknowledged[0]
            full.shed("snapshot", "create", "dev", "kept")
            full.way = EITHER
            full.shed("create", "child", "--from-snapshot", "kept", *(["--no-memory"] if number % 2 else []))
            whole, counts = sh(full, "child", f"python -c '{CHECK}'").splitlines()
            count, last = map(int, counts.split())
            assert (whole, count) == ("ok", last)
            assert last >= least
            full.shed("delete", "--force", "child")
            full.shed("snapshot", "rm", "kept")
        writer.terminate()
        reader.join()
