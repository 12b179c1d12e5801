"""`shed-server install` and `uninstall` with a real systemd: what its unit promises is what happens."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.tools.private_systemd import private_systemd
from support.vms.templates import WARM, lend

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(600)]
SHED = (sys.executable, "-m", "shed.cli.main")
SERVER = (sys.executable, "-m", "shed.server.main")


def test_a_service_and_a_shed_that_outlives_it(way: str, small_store: LayoutStore, tmp_path: Path) -> None:
    """Ready when it is active, started again when it dies, not when its configuration is wrong; the shed runs through
    all of it.
    """
    copy_store(small_store, tmp_path / "data/images")
    home = {
        "HOME": str(tmp_path),
        "SHED_DATA_DIR": str(tmp_path / "data"),
        "SHED_RUNTIME_DIR": str(tmp_path / "sockets"),
    }
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SHED_", "XDG_"))} | home
    config = tmp_path / "server.yaml"
    settings = f"name: here\nqemu: {{warm_start: {str(way == WARM).lower()}}}\n"
    config.write_text(settings)
    lend(tmp_path / "data", way)
    with private_systemd(tmp_path / "systemd") as systemd:

        def main_pid() -> str:
            return systemd.run("systemctl", "show", "--property=MainPID", "--value", "shed-server").strip()

        def shed(*words: str) -> str:
            return systemd.run(*SHED, *words, env=environment)

        def boot_of_shed() -> str:
            return shed("exec", "dev", "--", "cat", "/proc/sys/kernel/random/boot_id")

        assert "started the service" in systemd.run(*SERVER, "install", "--config", str(config), env=environment)
        assert systemd.run("systemctl", "is-active", "shed-server") == "active\n"
        assert systemd.run("systemctl", "is-enabled", "shed-server") == "enabled\n"
        first = main_pid()
        assert json.loads(shed("server", "status", "--json"))["pid"] == int(
            first
        )  # the service, none of the client's own
        assert json.loads(shed("create", "dev", "--image", "busybox", "--json"))["shed"]["boot"] == way
        boot = boot_of_shed()

        config.write_text(f"{settings}log_level: debug\n")
        assert "is active" in systemd.run(*SERVER, "install", "--config", str(config), env=environment)
        systemd.run("systemctl", "restart", "shed-server")
        second = main_pid()
        assert second != first
        assert boot_of_shed() == boot
        systemd.run("kill", "-9", second)
        systemd.wait("1", "systemctl", "show", "--property=NRestarts", "--value", "shed-server")
        systemd.wait("active", "systemctl", "is-active", "shed-server")
        assert boot_of_shed() == boot

        config.write_text("http_prot: 1\n")
        systemd.run("systemctl", "restart", "shed-server", code=1)
        assert systemd.run("systemctl", "is-active", "shed-server", code=3) == "failed\n"
        config.write_text(settings)
        assert "started the service" in systemd.run(*SERVER, "install", "--config", str(config), env=environment)
        assert boot_of_shed() == boot

        before = json.loads(shed("list", "--json"))[0]["pid"]
        assert "sheds keep running" in systemd.run(*SERVER, "uninstall", env=environment)
        assert systemd.run("systemctl", "is-active", "shed-server", code=3) == "inactive\n"
        assert b"shed-dev" in systemd.run("cat", f"/proc/{before}/cmdline").encode()
        assert not list((tmp_path / "systemd/etc/system").glob("**/shed-server.service"))
