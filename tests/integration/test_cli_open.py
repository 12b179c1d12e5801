"""`shed open`: the browser is told a URL that leads to the shed; real processes, fake VMs (port 7 echoes)."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers.fake_server import fake_server
from support.waiting import wait_until

pytestmark = pytest.mark.timeout(300)
SHED = [sys.executable, "-m", "shed.cli.main"]


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user with the shed ``dev``, whose browser writes down what it is told."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/seen\n')
    browser.chmod(0o700)
    with fake_server(tmp_path) as of_server:
        env = {**of_server, "BROWSER": str(browser)}
        subprocess.run([*SHED, "create", "dev"], env=env, check=True, capture_output=True)
        yield env


def echoes(url: str) -> bool:
    """Say whether what is at a URL says what it is told."""
    host, port = url.removeprefix("http://").removesuffix("/\n").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.sendall(b"hi")
        return sock.recv(2) == b"hi"


def opened(env: dict[str, str], *words: str) -> str:
    """Return what `shed open` prints, to its end."""
    done = subprocess.run([*SHED, "open", "dev", "7", *words], env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_port_without_a_way_is_forwarded(env: dict[str, str], tmp_path: Path) -> None:
    """For as long as the command runs."""
    with subprocess.Popen([*SHED, "open", "dev", "7"], env=env, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        url = running.stdout.readline()
        assert echoes(url)
        wait_until((tmp_path / "seen").exists)
        wait_until(lambda: (tmp_path / "seen").read_text() == url)
        running.send_signal(signal.SIGINT)
        assert running.wait() == 0


def test_a_way_that_is_there_is_used(env: dict[str, str], tmp_path: Path) -> None:
    """A tunnel in the background, and before it a published port; the command ends at once."""
    subprocess.run([*SHED, "tunnels", "start", "dev", "-t", ":7", "-d"], env=env, check=True, capture_output=True)
    try:
        tunnel = opened(env, "--no-browser")
        assert echoes(tunnel)
        subprocess.run([*SHED, "ports", "dev", "-p", "7"], env=env, check=True, capture_output=True)
        published = opened(env)
        assert published != tunnel
        assert echoes(published)
        assert opened(env, "--https", "--no-browser") == published.replace("http:", "https:")
        wait_until((tmp_path / "seen").exists)
        wait_until(lambda: (tmp_path / "seen").read_text() == published)
    finally:
        subprocess.run([*SHED, "tunnels", "stop", "dev"], env=env, check=True, capture_output=True)


@pytest.mark.parametrize(("words", "code"), [(["none", "7"], 1), (["dev", "x"], 2), (["dev", "0"], 2), (["dev"], 2)])
def test_what_cannot_be_opened(env: dict[str, str], words: list[str], code: int) -> None:
    """Is said in a sentence."""
    done = subprocess.run([*SHED, "open", *words], env=env, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
