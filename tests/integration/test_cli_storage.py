"""Removing, pruning and measuring by the real `shed` and the real server; VMs are the fake backend's, the store is
real.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shed.client.address import parse
from shed.client.sync.requests import request
from shed.config.paths import Paths
from shed.errors import NotFoundError, ShedError, UsageError
from shed.images import references
from shed.oci.digest import digest_bytes, short
from shed.oci.partial import partial_path
from shed.oci.store import LayoutStore
from shed.sheds import metadata
from support.images.stored import put_image, put_shed, put_snapshot
from support.servers.fake_server import fake_server
from support.vms.machine import ended
from support.waiting import wait_until

SHED = [sys.executable, "-m", "shed.cli.main"]
HOUR = 3600


@dataclass(frozen=True)
class Host:
    """A running server, its folders, and `shed` talking to it."""

    env: dict[str, str]
    paths: Paths
    store: LayoutStore

    def shed(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            [*SHED, *words],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str) -> dict[str, object]:
        """Run a command and return what it prints for machines."""
        answer: dict[str, object] = json.loads(self.shed(*words, "--json").stdout)
        return answer

    def asked(self, answer: str, *words: str) -> str:
        """Run a command on a terminal, answer its question, and return all it printed."""
        master, slave = pty.openpty()
        with subprocess.Popen(
            [*SHED, *words], env=self.env, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            os.close(slave)
            os.write(master, f"{answer}\n".encode())
            output = process.communicate(timeout=60)[0].decode()
        os.close(master)
        assert process.returncode == 0, output
        return output


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A server with an empty store."""
    paths = Paths(tmp_path / "data", tmp_path / "run")
    with fake_server(tmp_path) as env:
        yield Host(env, paths, LayoutStore(paths.images))


def age(path: Path, seconds: float) -> None:
    """Have `path` look as if it had not been touched for so long."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_an_image_from_its_names_to_its_last_byte(host: Host) -> None:
    """In use it cannot be removed; removed it cannot be used; pruned its space is free; what is needed stays
    throughout.
    """
    image, other = put_image(host.store, "mine", "mine", layers=2), put_image(host.store, "other", "other")
    references.record(host.store, "example.org/mine:v1", image)
    host.shed("create", "dev", "--image", "example.org/mine:v1")
    lines = host.shed("image", "ls").stdout.splitlines()
    assert lines[0].split() == ["IMAGE", "DIGEST", "SOURCE", "SIZE", "LAYERS", "IN", "USE"]
    assert lines[1].split() == ["mine", short(image), "user", *lines[1].split()[3:5], "full", "shed", "'dev'"]
    assert lines[2].split()[-1] == "-"
    refused = host.shed("image", "rm", "--force", "mine", code=1)
    assert "error: image 'mine' (" in refused.stderr
    assert "is in use by shed 'dev'" in refused.stderr
    assert host.shed("image", "prune", "--force").stdout == "nothing to delete\n"
    host.shed("delete", "--force", "dev")
    removed = host.json("image", "rm", "--force", short(image))
    assert removed["removed"] == [
        {"name": short(image), "digest": image, "tags": ["mine"], "references": ["example.org/mine:v1"], "warnings": []}
    ]
    assert "no image" in host.shed("create", "dev", "--image", "example.org/mine:v1", code=1).stderr
    assert host.store.has(image)
    preview = host.shed("image", "prune", "--dry-run")
    assert short(image) in preview.stdout
    assert preview.stderr.startswith("would free ")
    assert host.store.has(image)
    assert json.loads(host.shed("image", "prune", "--json", code=2).stderr)["error"]["code"] == "CONFIRMATION_NEEDED"
    answer = host.json("image", "prune", "--force")
    assert (answer["action"], answer["images"]) == ("prune", 1)
    assert not host.store.has(image)
    assert host.shed("image", "ls", "-q").stdout == "other\n"
    assert host.store.has(other)
    blob = host.store.ingest([b"of no image"])
    for scope in (("image", "prune"), ("system", "prune", "--images")):  # what goes is shown, also when it is no image
        assert short(blob) in host.shed(*scope, "--dry-run").stdout
    assert host.shed("create", "dev", "--image", "other").stdout.startswith("created dev")


def test_the_commands_of_the_upgrade_guide(host: Host) -> None:
    """Images of the version before are listed, marked, removed through a pipe, and pruned; two names of one image are
    no obstacle.
    """
    for name in ("base", "full", None):
        put_image(host.store, name or "dangling", name, root=False)
    put_image(host.store, "base", "again", root=False)
    cache = host.store.root / "cache/sha256"
    cache.mkdir(parents=True)
    (cache / f"{'0' * 64}.erofs").write_bytes(bytes(5000))
    listed = host.shed("image", "ls")
    assert listed.stdout.count("not bootable") == 4
    assert listed.stderr.count("lacks io.shed.rootfs.erofs.digest annotation") == 4
    assert len(host.shed("image", "ls", "-q").stdout.split()) == 4
    shed = " ".join(SHED)
    pipe = f"{shed} image ls -q | xargs -r -n1 {shed} image rm"
    subprocess.run(["sh", "-c", pipe], env=host.env, check=True, timeout=120, stdout=subprocess.DEVNULL)
    assert host.shed("image", "prune", "--force").stdout.startswith("deleted 3 images, freed ")
    assert host.store.blob_digests() == []
    assert list(cache.iterdir()) == []
    assert host.shed("image", "ls", "-q").stdout == ""


def test_questions(host: Host) -> None:
    """On a terminal both ask, say how much it is about, and do nothing unless the answer is yes."""
    put_image(host.store, "mine", "mine")
    output = host.asked("n", "image", "rm", "mine")
    assert output.startswith('Delete image "mine" (')
    assert output.endswith(")? [y/N] Cancelled.\n")
    assert host.store.tag_names() == ["mine"]
    assert (
        json.loads(host.shed("image", "rm", "mine", "--json", code=2).stderr)["error"]["code"] == "CONFIRMATION_NEEDED"
    )
    assert "removed mine" in host.asked("y", "image", "rm", "mine")
    assert "Delete 1 image (" in host.asked("", "image", "prune")
    assert host.store.blob_digests()
    assert "deleted 1 image, freed " in host.asked("y", "image", "prune")
    assert host.store.blob_digests() == []


def test_doubt_reaches_the_user(host: Host) -> None:
    """The file and the next step; nothing is deleted, neither by `image prune` nor by `system prune`."""
    put_image(host.store, "garbage")
    old = put_shed(host.paths, "old", put_image(host.store, "used"))
    age(old / metadata.METADATA, 100 * HOUR)
    broken = put_shed(host.paths, "broken", "x") / metadata.METADATA
    broken.write_text("{")
    before = set(host.store.inventory())
    for words in (["image", "prune"], ["system", "prune"]):
        refused = host.shed(*words, "--force", code=1)
        assert str(broken) in refused.stderr
        assert "hint: repair the file, or remove the shed and all in it: shed delete --force broken" in refused.stderr
    assert set(host.store.inventory()) == before
    assert old.exists()
    listed = host.shed("image", "ls")
    assert "IMAGE" in listed.stdout
    assert f"warning: the record of shed 'broken' is damaged: {broken}" in listed.stderr
    assert host.json("system", "df")["kinds"]


def test_system_df(host: Host) -> None:
    """Each kind with its count, its files' length and its disk space; a shared blob counts once."""
    digest = put_image(host.store, "one", "one")
    put_image(host.store, "one", "again")
    put_image(host.store, "two", "two")
    put_shed(host.paths, "dev", digest)
    upper = host.paths.uppers / "dev/upper.ext4"
    upper.parent.mkdir()
    with upper.open("wb") as file:
        file.truncate(1 << 30)
    put_snapshot(host.paths, "snap", digest)
    with (host.paths.templates / "upper-runtime-5G.ext4").open("wb") as file:
        file.truncate(5 << 30)
    (host.paths.logs / "dev-20200101T000000Z.log").write_text("x" * 100)
    (host.paths.uppers / "lost").mkdir()
    age(host.paths.uppers / "lost", 2 * HOUR)
    partial_path(host.store.blobs, digest_bytes(b"half")).write_bytes(bytes(5000))
    kinds = host.json("system", "df")["kinds"]
    assert isinstance(kinds, dict)
    assert {name: kind["count"] for name, kind in kinds.items()} == {
        "images": 2,
        "downloads": 1,
        "sheds": 1,
        "spares": 0,
        "snapshots": 1,
        "templates": 1,
        "logs": 1,
        "orphans": 1,
        "caches": 0,
    }
    blobs = host.store.inventory().values()
    assert kinds["images"]["size_bytes"] == sum(blob.st_size for blob in blobs)
    assert [item["name"] for item in kinds["images"]["items"]] == ["again, one", "two"]
    unique = [item["unique_bytes"] for item in kinds["images"]["items"]]
    assert unique == [4 * 4096, 4 * 4096]
    assert kinds["sheds"]["size_bytes"] > 1 << 30
    assert kinds["sheds"]["disk_bytes"] < 1 << 20
    assert (kinds["templates"]["size_bytes"], kinds["templates"]["disk_bytes"]) == (5 << 30, 0)
    lines = host.shed("system", "df").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [*kinds, "total"]
    lines = host.shed("system", "df", "-v").stdout.splitlines()
    assert any(line.startswith("  again, one") and "not shared" in line for line in lines)
    assert [line.split() for line in lines if short(digest_bytes(b"half")) in line] == [
        [short(digest_bytes(b"half")), "4.9", "KiB", "8", "KiB"]
    ]


def test_one_image_that_cannot_be_removed_does_not_keep_the_others(host: Host) -> None:
    """As with docker: each is told by itself, and the exit code is that of the failure."""
    for name in ("one", "two", "three"):
        put_image(host.store, name, name)
    host.shed("create", "dev", "--image", "two")
    failed = host.shed("image", "rm", "none", "one", "two", "three", code=1)
    assert failed.stdout == "removed one\nremoved three\n"
    assert [line.split(" (")[0] for line in failed.stderr.splitlines() if line.startswith("error")] == [
        "error: no image is called 'none'",
        "error: image 'two'",
    ]
    assert host.shed("image", "ls", "-q").stdout.splitlines()[0] == "two"
    assert "the name of the image is empty" in host.shed("image", "rm", "", code=2).stderr


def test_df_of_all_servers(host: Host, tmp_path: Path) -> None:
    """This machine's own, and those of the client's configuration; one that is down is named, and holds nobody up."""
    config = tmp_path / "client.yaml"
    config.write_text("servers:\n  lab: {host: 127.0.0.1, http_port: 9}\n")
    done = host.shed("system", "df", "--all", "--config", str(config))
    assert done.stdout.startswith("local:\nKIND ")
    assert "lab is down: no server listens at http://127.0.0.1:9" in done.stderr
    answer = json.loads(host.shed("system", "df", "--all", "--json", "--config", str(config)).stdout)
    assert (list(answer["servers"]), [row["server"] for row in answer["down"]]) == (["local"], ["lab"])
    assert answer["servers"]["local"]["kinds"]["images"]["count"] == 0


def test_system_prune(host: Host) -> None:
    """Old stopped sheds, then their images, then leftovers; a dry run says the same; young and running ones stay."""
    image, kept = put_image(host.store, "image"), put_image(host.store, "kept", "kept")
    for name, hours in (("old", 100), ("young", 1)):
        folder = put_shed(host.paths, name, image if name == "old" else kept)
        age(folder / metadata.METADATA, hours * HOUR)
    host.shed("create", "running", "--image", "kept")
    age(host.paths.instances / "running/metadata.json", 100 * HOUR)
    lost = host.paths.uppers / "lost"
    lost.mkdir()
    (lost / "upper.ext4").write_bytes(bytes(5000))
    (host.paths.uppers / "fresh").mkdir()
    temporary = host.store.root / "tags/.x.json.abc.tmp"
    temporary.write_text("x")
    template = host.paths.templates / "upper-runtime-5G.ext4"
    template.touch()
    for path in (lost, temporary, template):
        age(path, 2 * HOUR)
    log, young_log = (host.paths.logs / f"{name}.log" for name in ("old", "young"))
    put_aside, audit = host.paths.logs / "server.log.1", host.paths.logs / "audit.log"
    for path in (log, young_log, put_aside, audit):
        path.write_text("x")
    for path in (log, put_aside, audit):
        age(path, 100 * HOUR)
    plan: dict[str, Any] = host.json("system", "prune", "--dry-run", "--instances", "--images", "--orphans", "--logs")
    scopes = ("instances", "images", "orphans", "logs")
    names = {scope: [row.get("name", row.get("digest")) for row in plan[scope]] for scope in scopes}
    assert names["instances"] == ["old"]
    assert image in names["images"]
    assert len(names["images"]) == 4
    assert names["orphans"] == [str(temporary), str(template), str(lost)]
    assert names["logs"] == [str(log), str(put_aside)]
    assert (host.paths.instances / "old").exists()
    answer: dict[str, Any] = host.json("system", "prune", "--force")
    removed = {scope: [row.get("name", row.get("digest")) for row in answer[scope]] for scope in scopes}
    assert removed == {**names, "logs": []}
    assert answer["size_bytes"] == plan["size_bytes"] - 2 * 4096
    assert sorted(path.name for path in host.paths.instances.iterdir() if not path.name.startswith(".")) == [
        "running",
        "young",
    ]
    assert not host.store.has(image)
    assert host.store.has(kept)
    assert not lost.exists()
    assert (host.paths.uppers / "fresh").exists()
    assert log.exists()
    assert "deleted 2 logs, freed " in host.shed("system", "prune", "--logs", "--force").stdout
    assert (put_aside.exists(), audit.exists()) == (False, True)
    assert (log.exists(), young_log.exists(), (host.paths.instances / ".old.lock").exists()) == (False, True, True)
    assert host.shed("system", "prune", "--force").stdout == "nothing to delete\n"


def test_console_logs_are_cut(host: Host) -> None:
    """To their end, in place, after the old sheds have gone; a dry run says the same, and the short ones stay as they
    are.
    """
    digest = put_image(host.store, "kept", "kept")
    logs = {name: put_shed(host.paths, name, digest) / "console.log" for name in ("long", "old", "short")}
    age(logs["old"].parent / metadata.METADATA, 100 * HOUR)
    text = b"".join(b"line %d\n" % number for number in range(600_000))
    for name, log in logs.items():
        log.write_bytes(text[:1000] if name == "short" else text)
    before = logs["long"].with_name("console.before.log")
    before.write_bytes(text[: 5 << 20])
    with logs["long"].open("ab") as writer:
        plan = host.json("system", "prune", "--logs", "--instances", "--dry-run")
        assert plan["consoles"] == [{"name": str(logs["long"]), "size_bytes": len(text) - (5 << 20)}]
        assert {**host.json("system", "prune", "--logs", "--instances", "--force"), "dry_run": True} == {
            "status": "ok", "action": "prune", "name": "system", **plan
        }  # fmt: skip
        writer.write(b"the VM goes on\n")
    assert logs["long"].read_bytes() == text[-5 << 20 :] + b"the VM goes on\n"
    assert logs["short"].read_bytes() == text[:1000]
    done = host.shed("system", "prune", "--logs", "--log-tail-bytes", "4K", "--force").stdout
    assert done == "cut 2 console logs, freed 10 MiB\n"
    assert logs["long"].read_bytes().endswith(b"\nthe VM goes on\n")
    assert before.read_bytes() == text[: 5 << 20][-4096:]
    assert (
        "--log-tail-bytes goes with --logs"
        in host.shed("system", "prune", "--log-tail-bytes", "4K", "--force", code=2).stderr
    )
    assert "Cut 3 console logs (9 KiB)? [y/N]" in host.asked("y", "system", "prune", "--logs", "--log-tail-bytes", "0")
    assert logs["long"].read_bytes() == b""


def test_an_image_is_named_in_the_path(host: Host) -> None:
    """As well as by ?ref=; a name that is a route's, too, and no route's method is taken from it."""
    digest = put_image(host.store, "image", "pull")
    references.record(host.store, "example.org/a/b:v1", digest)
    server = parse(f"unix://{host.paths.socket}")
    with pytest.raises(UsageError, match="image is missing"):
        request(server, "POST", "/api/images/pull", body={})
    with pytest.raises(ShedError, match="POST is not possible on /api/images/mine"):
        request(server, "POST", "/api/images/mine", body={})
    assert request(server, "GET", "/api/images/inspect/example.org%2Fa%2Fb:v1")["digest"] == digest
    put_image(host.store, "image", "another")
    assert request(server, "DELETE", "/api/images/pull")["tags"] == ["pull"]
    assert request(server, "DELETE", "/api/images/example.org%2Fa%2Fb%3Av1")["references"] == ["example.org/a/b:v1"]
    with pytest.raises(NotFoundError):
        request(server, "DELETE", "/api/images/pull")


def test_what_is_held_is_no_orphan(host: Host) -> None:
    """A leftover whose name another server works on stays."""
    lost = host.paths.uppers / "lost"
    lost.mkdir()
    age(lost, 2 * HOUR)
    with (host.paths.instances / ".lost.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert str(lost) not in host.shed("system", "prune", "--orphans", "--dry-run").stdout
    assert str(lost) in host.shed("system", "prune", "--orphans", "--dry-run").stdout


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"imagse": True}, "unknown member 'imagse'"),
        ({"images": 1}, "images must be true or false"),
        ({"until_seconds": -1}, "until_seconds"),
        ({"log_tail_bytes": 0.5}, "log_tail_bytes"),
    ],
)
def test_odd_requests(host: Host, body: dict[str, object], message: str) -> None:
    """Each is one sentence."""
    with pytest.raises(UsageError, match=message):
        request(parse(f"unix://{host.paths.socket}"), "POST", "/api/system/prune", body=body)


def test_reset_leaves_nothing(host: Host) -> None:
    """Sheds, images, folders and downloads are gone, VMs too; what is the user's own stays; again it is no failure."""
    ours = Path(host.env["HOME"]) / ".shed/config.yaml"
    ours.parent.mkdir(exist_ok=True)
    ours.write_text("{}")
    downloads = Path(host.env["HOME"]) / ".cache/shed/debs"
    downloads.mkdir(parents=True)
    host.shed("create", "dev")
    pid = int(json.loads(host.shed("list", "--json").stdout)[0]["pid"])
    host.shed("system", "reset", code=2)  # nobody can be asked
    assert host.paths.instances.is_dir()
    said = host.json("system", "reset", "--force")
    assert said["sheds"] == ["dev"]
    assert not host.paths.data.exists()
    assert not host.paths.socket.exists()
    assert not downloads.parent.exists()
    assert ours.exists()
    wait_until(lambda: ended(pid))
    assert "there is nothing in" in host.shed("system", "reset", "--force").stdout


def test_reset_takes_no_other_folder(host: Host, tmp_path: Path) -> None:
    """One that is not surely a server's is refused, and stays as it is."""
    host.shed("server", "stop")
    mine = tmp_path / "mine"
    (mine / "images").mkdir(parents=True)
    host.env["SHED_DATA_DIR"] = str(mine)
    assert "is not the data of a server of yours" in host.shed("system", "reset", "--force", code=2).stderr
    assert (mine / "images").is_dir()
