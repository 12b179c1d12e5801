"""A project with a ``devcontainer.json`` in a real guest: its image is built by a real builder, with a feature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.registries.docker_registry import docker_registry, no_credentials
from support.registries.features import feature_archive, feature_files, push_feature
from support.tools.containers import make_containers
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
LIFECYCLE = ("onCreateCommand", "updateContentCommand", "postCreateCommand", "postStartCommand")


@pytest.fixture
def machine(way: str, base_store: LayoutStore, tmp_path: Path) -> Iterator[Machine]:
    """A machine with a storage of images for its builder."""
    containers = make_containers(tmp_path / "containers", "/usr/sbin:/usr/bin:/sbin:/bin")
    machine = Machine(tmp_path / "machine", way=way)
    copy_store(base_store, machine.data / "images")
    machine.environment |= {key: value for key, value in containers.env.items() if key != "HOME"}
    try:
        yield machine
    finally:
        machine.end()


def test_a_project_in_one_command(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool of a feature runs, as the user of the project; commands of the feature and of the project come in
    their order, once and at each start; what the host has for it is asked for; a second shed needs no build.
    """
    no_credentials(monkeypatch, tmp_path)
    project = tmp_path / "project"
    (project / ".devcontainer").mkdir(parents=True)
    (project / "said").touch(mode=0o666)
    with docker_registry(tmp_path / "registry") as registry:
        place = f"{registry.address}/team/tool"
        script = "printf '#!/bin/sh\\necho the tool of $(id -un)\\n' >/usr/bin/tool\nchmod 755 /usr/bin/tool"
        says = {key: f"echo feature {key} >>said" for key in LIFECYCLE}
        push_feature(place, feature_archive(feature_files("tool", script, **says)))
        document = {
            "image": "base",
            "features": {f"{place}:1": {}},
            "remoteUser": "nobody",
            "hostRequirements": {"storage": "7gb"},
            "forwardPorts": [3000],
            "initializeCommand": f"touch {tmp_path}/initialized",
            "remoteEnv": {"WHO": "${localEnv:WHO_I_AM}", "OTHER": "${localEnv:NOT_ALLOWED}"},
            **{key: f"echo project {key} >>said" for key in LIFECYCLE},
        }
        (project / ".devcontainer/devcontainer.json").write_text(json.dumps(document))
        machine.environment |= {"WHO_I_AM": "ada", "NOT_ALLOWED": "secret"}
        words = ("--devcontainer", str(project), "--local-env", "WHO_I_AM")
        made = machine.try_shed("create", "dev", *words)
        said = made.stderr.decode()
        assert made.returncode == 0, said + machine.consoles()
        assert "installing the features with " in said, said
        assert "shed forward dev 3000" in said
        assert "WHO: it names variables" not in said
        assert "may not read your variable NOT_ALLOWED" in said
        again = machine.try_shed("create", "again", *words, "--no-provision")
        assert "is up to date" in again.stderr.decode(), again.stderr.decode()
    order = [f"{who} {key}" for key in LIFECYCLE for who in ("feature", "project")]
    assert (project / "said").read_text().splitlines() == order
    assert machine.shed("exec", "dev", "--", "sh", "-c", "tool; echo $WHO$OTHER") == "the tool of nobody\nada\n"
    assert machine.show("dev")["upper_size_bytes"] == 7 << 30
    machine.shed("stop", "dev")
    machine.shed("start", "dev")
    assert (project / "said").read_text().splitlines()[len(order) :] == order[-2:]
    assert not (tmp_path / "initialized").exists()
