"""`shed image build` with real builders: what they build, how a build fails or is ended, and images that exist
already.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from shed.erofs.reader import Image as ErofsImage
from shed.images.bootkit.build import save_kit
from shed.oci.store import LayoutStore
from support.erofs.records import differences, record_image
from support.erofs.tree_record import record_folder
from support.images.kit import archive
from support.images.minted import small_kit
from support.registries.docker_registry import docker_registry
from support.tools.containers import BUSYBOX, Containers, make_containers
from support.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow]
FOREVER = f"{100000 + os.getpid()}.5"
"""Seconds that nothing else on this machine sleeps."""
BUILD = [sys.executable, "-m", "shed.cli.main", "image", "build", "-n", "dev"]
CONTAINERFILE = f"""
FROM {BUSYBOX} AS one
ARG WORD=none
RUN echo $WORD > /word && mkdir /d && echo x > /d/gone
FROM {BUSYBOX} AS two
COPY --from=one /word /d /here/
RUN rm /here/gone && chmod 4711 /here/word && ln -s word /here/link
FROM two
RUN touch /last
"""


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """The storage that tests share, with only buildah and podman for builders."""
    folder = tmp_path_factory.mktemp("containers")
    tools = folder / "bin"
    tools.mkdir()
    for name in ("buildah", "podman"):
        found = shutil.which(name)
        assert found, f"scripts/setup --tests installs {name}"
        (tools / name).symlink_to(found)
    yield make_containers(folder / "one", f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin")
    for mounted in folder.glob(
        "*/storage/overlay"
    ):  # the tools leave it mounted on itself when a mount in it was in use
        subprocess.run(["umount", "--lazy", mounted], capture_output=True, check=False)
    shutil.rmtree(folder)


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """The store that `shed` uses, with a boot kit."""
    store = LayoutStore(tmp_path / "data/images")
    save_kit(store, small_kit(store))
    return store


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder to build from."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Containerfile").write_text(CONTAINERFILE)
    return folder


def shed(
    store: LayoutStore, containers: Containers, *words: str | Path, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run ``shed image build -n dev``."""
    return subprocess.run(
        [*BUILD, *words], capture_output=True, text=True, timeout=280, check=False, env=_env(store, containers) | env
    )


def _env(store: LayoutStore, containers: Containers) -> dict[str, str]:
    return containers.env | {"SHED_DATA_DIR": str(store.root.parent)}


def build(store: LayoutStore, containers: Containers, *words: str | Path, **env: str) -> dict[str, Any]:
    """Run ``shed image build -n dev`` and return what it tells machines."""
    done = shed(store, containers, "--json", *words, **env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def leftovers(store: LayoutStore, containers: Containers) -> list[str]:
    """Return temporary files of the store and working containers of the builder."""
    return [path.name for path in store.blobs.glob(".*.tmp")] + containers.run("buildah", "containers", "-q").split()


@pytest.mark.parametrize("builder", ["buildah", "podman"])
def test_a_stage_is_built(store: LayoutStore, containers: Containers, context: Path, builder: str) -> None:
    """With an argument from the environment; the root holds the very tree that the builder shows."""
    found = build(
        store, containers, context, "--builder", builder, "--target", "two", "--build-arg", "WORD", WORD=f"by {builder}"
    )
    assert found["builder"] == builder
    assert set(found["timings"]) >= {"build", "flatten", "write", "check"}
    container = containers.run("buildah", "from", "--pull=never", "localhost/shed-build:dev")
    try:
        mounted = Path(containers.run("buildah", "mount", container))
        assert (mounted / "here/word").read_text() == f"by {builder}\n"
        assert not (mounted / "last").exists()
        theirs = record_folder(os.fsencode(mounted))
        with ErofsImage.open(store.blob_path(found["root_digest"])) as image:
            ours = record_image(image)
        ours[""] |= {"mode": theirs[""]["mode"], "mtime": theirs[""]["mtime"]}  # of the storage: no layer says
        for record in ours.values():
            if "target" in record:
                record["mode"] = stat.S_IFLNK | 0o777  # as Linux shows every link
        assert differences(ours, theirs) == []
    finally:
        containers.run("buildah", "rm", container)
    assert leftovers(store, containers) == []


@pytest.mark.parametrize("builder", ["buildah", "podman"])
def test_what_the_builder_made_is_kept(
    store: LayoutStore, containers: Containers, context: Path, tmp_path: Path, builder: str
) -> None:
    """In a new folder, named by a relative path, as an OCI archive that gives the same image."""
    out = Path(os.path.relpath(tmp_path / "out/deep"))
    built = build(store, containers, context, "--builder", builder, "--output-dir", out)
    assert [path.name for path in out.iterdir()] == ["dev.oci.tar"]
    again = build(store, containers, "--from-oci-archive", out / "dev.oci.tar")
    assert (again["digest"], again["reused"]) == (built["digest"], True)


@pytest.mark.parametrize("builder", ["buildah", "podman"])
def test_an_image_of_this_store_is_built_on(
    store: LayoutStore, containers: Containers, context: Path, tmp_path: Path, builder: str
) -> None:
    """In FROM with and without an argument, in COPY and in a mount; the builder's own of that name is not taken."""
    kept = tmp_path / "kept"
    (context / "Containerfile").write_text(f"FROM {BUSYBOX}\nRUN echo of the store >/who\n")
    ours = build(store, containers, context, "-n", "full", "--builder", builder, "--output-dir", kept)
    (context / "Containerfile").write_text(f"FROM {BUSYBOX}\nRUN echo of the builder >/who\n")
    containers.run("buildah", "build", "-q", "-t", "localhost/full", context)
    (context / "Containerfile").write_text(
        "ARG BASE=nothing\nFROM ${BASE} AS one\nRUN cp /who /a\nFROM full\nCOPY --from=full:latest /who /b\n"
        "RUN --mount=type=bind,from=full,target=/m cat /m/who >/c\nCOPY --from=one /a /a\n"
    )
    words = (context, "--builder", builder, "--build-arg", "BASE=full", "--output-dir", kept)
    done = shed(store, containers, *words)
    assert done.returncode == 0, done.stderr
    assert f"full is the image of this store, {ours['digest'][:19]}, not one of a registry\n" in done.stderr
    found = build(store, containers, *words, "--force")
    assert found["bases"] == {"full": ours["digest"]}
    with ErofsImage.open(store.blob_path(found["root_digest"])) as image:
        for name in ("who", "a", "b", "c"):
            assert b"".join(image.chunks(image.lookup(name.encode()))) == b"of the store\n"
    inspected = json.loads(containers.run("skopeo", "inspect", "--raw", f"oci-archive:{kept / 'dev.oci.tar'}"))
    assert not [key for key in inspected.get("annotations", {}) if key.startswith("io.shed.")]
    assert leftovers(store, containers) == []


def test_a_date_makes_builds_the_same(
    containers: Containers, store: LayoutStore, context: Path, tmp_path: Path
) -> None:
    """Two storages, no common cache, two moments: with SOURCE_DATE_EPOCH, one digest."""
    other = make_containers(containers.folder.parent / "other", containers.env["PATH"])
    first = build(store, containers, context, "--builder", "buildah", SOURCE_DATE_EPOCH="1700000000")
    second = build(store, other, context, "--builder", "buildah", "--force", SOURCE_DATE_EPOCH="1700000000")
    assert first["digest"] == second["digest"]


def test_a_run_that_fails(store: LayoutStore, containers: Containers, context: Path) -> None:
    """People have seen what it printed, and get one error; machines get it in the error."""
    (context / "Containerfile").write_text(f"FROM {BUSYBOX}\nRUN echo what went wrong >&2; sleep 1; exit 7\n")
    done = shed(store, containers, context)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert "what went wrong" in lines
    assert [line for line in lines if line.startswith("error:")] == lines[-2:-1]
    assert "podman failed with exit code" in lines[-2]
    assert lines[-1] == "hint: what podman printed says why"
    error = json.loads(shed(store, containers, "--json", context).stderr)["error"]
    assert error["code"] == "TOOL_FAILED"
    assert "\nwhat went wrong\n" in error["message"]
    assert leftovers(store, containers) == []


@pytest.mark.parametrize("builder", ["buildah", "podman"])
def test_an_interrupt_ends_the_builder(store: LayoutStore, containers: Containers, context: Path, builder: str) -> None:
    """And all that it runs; nothing is left on disk, neither ours nor the builder's."""
    (context / "Containerfile").write_text(f"FROM {BUSYBOX}\nRUN echo it has begun && sleep {FOREVER}\n")
    command = [*BUILD, str(context), "--builder", builder]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_env(store, containers)) as process:
        assert process.stderr is not None
        while process.stderr.readline() != "it has begun\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        assert process.stderr.read().endswith("interrupted\n")
    wait_until(lambda: running(f"sleep {FOREVER}") == [])
    assert leftovers(store, containers) == []
    assert store.tag_names() == []


def running(words: str) -> list[str]:
    """Return the processes with these words in their command lines."""
    lines = subprocess.run(["ps", "-e", "-o", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in lines.splitlines() if words in line and not line.startswith("Z")]


def test_a_docker_without_an_engine_is_passed_over(
    store: LayoutStore, containers: Containers, context: Path, tmp_path: Path
) -> None:
    """The next that works builds; when docker is asked for, or nothing else is there, its complaint is told."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2; exit 1\n")
    (tools / "docker").chmod(0o755)
    assert build(store, containers, context, PATH=f"{tools}:{containers.env['PATH']}")["builder"] == "podman"
    asked = shed(store, containers, context, "--builder", "docker", PATH=f"{tools}:/bin")
    assert "error: cannot build with docker: Cannot connect to the Docker daemon\n" in asked.stderr
    for name in ("sh", "env"):
        (tools / name).symlink_to(f"/bin/{name}")
    alone = shed(store, containers, context, PATH=str(tools))
    reasons = "docker: Cannot connect to the Docker daemon; podman: it is not installed; buildah: it is not installed"
    assert f"error: no image builder works on this machine: {reasons}\n" in alone.stderr


def test_an_image_of_the_local_storage(store: LayoutStore, containers: Containers) -> None:
    """By its transport or by its name alone, which is then what the image was made from; with podman, or with buildah
    alone.
    """
    root = build(store, containers, "--from-oci-archive", archive("busybox"))["root_digest"]
    assert build(store, containers, "--from", f"containers-storage:{BUSYBOX}")["root_digest"] == root
    found = build(store, containers, "--from", BUSYBOX)
    assert found["root_digest"] == root
    annotations = store.read_manifest(found["digest"]).annotations
    assert annotations["io.shed.source-ref"] == BUSYBOX
    alone = containers.folder.parent / "alone"
    alone.mkdir()
    (alone / "buildah").symlink_to("/usr/bin/buildah")
    assert build(store, containers, "--from", BUSYBOX, "--force", PATH=str(alone))["root_digest"] == root
    assert leftovers(store, containers) == []


def test_an_image_of_a_registry(store: LayoutStore, containers: Containers, tmp_path: Path) -> None:
    """Found there when no local store has it; its name there is what the image was made from."""
    source = archive("busybox")
    root = build(store, containers, "--from-oci-archive", source)["root_digest"]
    with docker_registry(tmp_path / "registry") as registry:
        reference = f"{registry.address}/busybox:v1"
        containers.run(
            "/usr/bin/skopeo", "copy", "--dest-tls-verify=false", f"oci-archive:{source}", f"docker://{reference}"
        )
        for form in (reference, f"docker://{reference}"):
            found = build(store, containers, "--from", form, "--force")
            assert found["root_digest"] == root
            assert store.read_manifest(found["digest"]).annotations["io.shed.source-ref"] == reference
    assert leftovers(store, containers) == []


@pytest.mark.parametrize(
    ("reference", "code", "message"),
    [
        ("containers-storage:localhost/nope", 1, "podman has no image 'localhost/nope'"),
        ("docker-daemon:x", 1, "cannot read docker-daemon: docker: "),
        ("127.0.0.1:1/x", 1, "127.0.0.1:1/x is in no container store of this machine, and cannot reach 127.0.0.1:1"),
        ("oci-archive:/nope.tar", 1, "/nope.tar does not exist"),
        ("oci-archive:{busybox}:nope", 1, "has no image 'nope', only no names"),
        ("{busybox}", 2, "is a path, not an image"),
        ("--help", 2, "--from needs a value"),
        ("containers-storage:--help", 2, "names no image"),
        ("docker://", 2, "names no image"),
    ],
)
def test_an_image_that_is_not_there(
    store: LayoutStore, containers: Containers, reference: str, code: int, message: str
) -> None:
    """One sentence and one hint."""
    done = shed(store, containers, "--from", reference.format(busybox=archive("busybox")))
    assert (done.returncode, done.stdout) == (code, "")
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--from-oci-archive", "a.tar", "."],
            "--from-oci-archive uses an archive as it is, so it cannot be combined with CONTEXT",
        ),
        (["--from-oci-archive", "a.tar", "--from", "x"], "it cannot be combined with --from"),
        (
            ["--from-oci-archive", "-", "-f", "x", "--target", "y", "--build-arg", "z"],
            "with --file, --target, --build-arg",
        ),
        (["--from", "x", "--builder", "podman", "--output-dir", "y"], "--from uses an image that exists as it is"),
        (["--builder", "kaniko", "."], "there is no builder 'kaniko'"),
        (["/nope"], "the context /nope is not a folder"),
        (["--platform", "amd64"], "invalid platform 'amd64'"),
    ],
)
def test_what_cannot_be_asked(
    store: LayoutStore, containers: Containers, tmp_path: Path, words: Sequence[str], message: str
) -> None:
    """Contradictions are refused in one sentence, before anything is done."""
    (tmp_path / "Dockerfile").touch()
    done = subprocess.run(
        [*BUILD, *words], capture_output=True, text=True, check=False, cwd=tmp_path, env=_env(store, containers)
    )
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")
