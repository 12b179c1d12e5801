"""How the image of a project is built: what the builder is given, and by what the image is found again."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shed.errors import DataError, UsageError
from shed.images.annotations import BootAnnotations
from shed.images.builders.containerfile import takes_context
from shed.images.devcontainer import identity
from shed.images.devcontainer import resolve as resolve_module
from shed.images.devcontainer.built import FILE, find_image, note_image
from shed.images.devcontainer.feature import Feature, Metadata
from shed.images.devcontainer.identity import build_identity, image_key
from shed.images.devcontainer.project import DockerBuild, Project
from shed.images.devcontainer.recipe import Users, inherited, write_context
from shed.images.devcontainer.resolve import CONFIG_TYPE, LAYER_TYPE, MOST_ARCHIVE, Resolver, _layer
from shed.images.mint import mint_archive
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import digest_bytes
from shed.oci.store import LayoutStore
from shed.progress import Progress
from support.images.minted import LAYER, digest_of, mint_small, small_kit
from support.layers.tars import Image, tar
from support.layers.tars import file as file_of
from support.registries.features import feature_files

DIGEST = digest_bytes(b"x")


def project(folder: Path, **says: Any) -> Project:
    """Return a project in `folder` on the image base."""
    return Project(folder, folder / ".devcontainer/devcontainer.json", "base", **says)


def feature(folder: Path, name: str = "tool", **options: str) -> Feature:
    """Return a feature with hostile words in all that it may say."""
    metadata = Metadata(
        name, env={"PATH": '/x:${containerEnv:PATH}"\\'}, kept={"postCreateCommand": "echo '$HOME' \"\\\n"}
    )
    place = folder / "1/feature"
    place.mkdir(parents=True, exist_ok=True)
    return Feature(f"r.example/f/{name}:1", f"r.example/f/{name}", "1", DIGEST, DIGEST, options, metadata, place)


def test_the_containerfile(tmp_path: Path) -> None:
    """Features run as root, with their variables and users; the label and the user come last; whatever a feature says
    stays within its word.
    """
    settings = {"User": "www:www", "Labels": {"devcontainer.metadata": '[{"id": "old", "remoteUser": "old"}]'}}
    wanted = project(tmp_path, container_user="ada", document={"customizations": {"vscode": {}}})
    file = write_context(tmp_path, wanted, [feature(tmp_path, greeting="it's\n$(touch x)")], settings)
    lines = file.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["FROM", "USER", "ENV", "RUN", "RUN", "COPY", "LABEL", "USER"]
    assert lines[2] == 'ENV PATH="/x:${PATH}\\"\\\\"'
    assert lines[3].startswith(
        "RUN --mount=type=bind,source=1,target=/run/shed-feature sh /run/shed-feature/run ada old "
    )
    assert lines[-1] == "USER old"
    options = (tmp_path / "1" / lines[3].split()[-1]).read_text()
    said = subprocess.run(["sh", "-c", f'{options}\nprintf %s "$GREETING"'], capture_output=True, check=True)
    assert said.stdout == b"it's\n$(touch x)"
    label = lines[6].removeprefix('LABEL devcontainer.metadata="').removesuffix('"')
    for mark in ("$", '"', "\\"):
        label = label.replace(f"\\{mark}", mark)
    noted = json.loads(label)
    assert [each.get("id") for each in noted] == ["old", "r.example/f/tool:1", None]
    assert noted[1]["postCreateCommand"] == "echo '$HOME' \"\\\n"
    assert noted[2] == {"remoteUser": "old", "containerUser": "ada", "customizations": {"vscode": {}}}
    kept = json.loads((tmp_path / "devcontainer.json").read_text())["metadata"]
    assert [each["id"] for each in kept] == ["r.example/f/tool:1"]


def test_a_feature_that_is_installed_twice(tmp_path: Path) -> None:
    """Each time with its own options."""
    twice = [feature(tmp_path, greeting="one"), feature(tmp_path, greeting="two")]
    runs = [
        line
        for line in write_context(tmp_path, project(tmp_path), twice, {}).read_text().splitlines()
        if line.startswith("RUN")
    ]
    assert [(tmp_path / "1" / run.split()[-1]).read_text() for run in runs] == ["GREETING=one\n", "GREETING=two\n"]


def test_whose_user_counts(tmp_path: Path) -> None:
    """The project's, then the base's metadata, the last that says so, then the base's own, then root."""
    base = {"User": "1000:1000"}
    label = [{"remoteUser": "one"}, {"remoteUser": "two", "containerUser": "a\nRUN x"}]
    assert Users.of(project(tmp_path), {}, []) == Users("root", "root")
    assert Users.of(project(tmp_path), base, []) == Users("1000:1000", "1000:1000")
    assert Users.of(project(tmp_path), base, label) == Users("1000:1000", "two")
    assert Users.of(project(tmp_path, remote_user="ada"), base, label) == Users("1000:1000", "ada")
    assert Users.of(project(tmp_path, container_user="bob"), {"User": "x; y"}, []) == Users("bob", "bob")


def test_labels_of_bases() -> None:
    """One object, or several; no label; and one that is no JSON."""
    assert inherited({"Labels": {"devcontainer.metadata": '{"id": "a"}'}}) == [{"id": "a"}]
    assert inherited({"Labels": {"devcontainer.metadata": '[{"id": "a"}, 1]'}}) == [{"id": "a"}]
    assert inherited({"Labels": None}) == inherited({}) == []
    with pytest.raises(DataError, match=r"label devcontainer\.metadata of the base"):
        inherited({"Labels": {"devcontainer.metadata": "["}})


def test_metadata_that_is_too_long(tmp_path: Path) -> None:
    """Builders could not read the line."""
    long = replace(feature(tmp_path), metadata=Metadata("tool", kept={"customizations": {"a": "x" * 60_000}}))
    with pytest.raises(DataError, match="longer than"):
        write_context(tmp_path, project(tmp_path), [long], {})
    quoted = project(tmp_path, document={"customizations": {"a": '"' * 20_000}})
    with pytest.raises(DataError, match="longer than"):
        write_context(tmp_path, quoted, [], {})


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("FROM a\nRUN x\nENV A=b", False),
        ("FROM a\nCOPY --from=b /x /y", False),
        ("FROM a\nCOPY --chown=1 x /y", True),
        ("FROM a\nADD https://example.com/x /y", True),
        ("FROM a\nRUN --mount=type=cache,target=/c --mount=type=bind,from=b,target=/b x", False),
        ("FROM a\nRUN --mount=type=secret,id=x x", False),
        ("FROM a\nRUN --mount=target=/src x", True),
        ("FROM a\nRUN --mount=type=bind,target=/src x", True),
        ("FROM a\nONBUILD COPY . /x", True),
        ("FROM a\nRUN <<EOF\nCOPY x y\nEOF\nRUN z", False),
        ("FROM a\nRUN echo $((1 << 4))\nCOPY x y", True),
        ("FROM a\nRUN x=$((1<<20))\nCOPY x y\n20", True),
        ("FROM a\nRUN cat <<< EOF\nCOPY x y\nEOF", True),
    ],
)
def test_what_takes_files_of_the_context(text: str, *, takes: bool) -> None:
    """When in doubt, it does."""
    assert takes_context(text) is takes


def test_what_decides_a_dockerfile(tmp_path: Path) -> None:
    """Text, arguments, target, bases of the store, and the context if it is used; one that only a builder knows does
    not tell.
    """
    store = LayoutStore(tmp_path / "store")
    mint_small(store, tmp_path)
    file, context = tmp_path / "Dockerfile", tmp_path / "context"
    context.mkdir()
    seen = set()

    def see(text: str, **more: Any) -> str:
        file.write_text(text)
        seen.add(found := build_identity(DockerBuild(file, context, **more), store))
        return found

    text = "FROM base AS one\nFROM one\n"
    first = see(text)
    (context / "file").write_text("a")
    assert see(text) == first
    see(text, args={"A": "b"})
    see(text, target="one")
    copying = text + "COPY file /\n"
    see(copying)
    (context / "file").write_text("b")
    see(copying)
    mint_small(store, tmp_path, layer=tar(file_of("etc/other")))
    see(text)
    assert len(seen) == 6
    assert see("FROM localhost/mine\n") == ""
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is no text"):
        build_identity(DockerBuild(file, context), store)


@pytest.mark.parametrize(
    "text",
    [
        "FROM oci:/srv/layout:x",
        "FROM oci:layout",
        "ARG B=docker-archive:/x.tar\nFROM $B",
        "FROM dir:/srv",
        "FROM containers-storage:[overlay@/srv]x",
        "FROM sha256:" + "0" * 64,
        "FROM base\nCOPY --from=oci:/srv/layout:x / /",
        "FROM base\nARG X=oci:/srv/layout:x\nCOPY --from=$X / /",
        "FROM base\nRUN --mount=type=bind,from=oci-archive:/x,target=/x x",
        "FROM base\nONBUILD COPY --from=oci:/srv/layout:x / /",
        "FROM base\nRUN <<EOF\nFROM oci:/srv/layout:x\nEOF",
    ],
)
def test_a_dockerfile_names_no_files_of_the_host(tmp_path: Path, text: str) -> None:
    """Nor another storage, whatever way it takes; it is told before anything is built."""
    store = LayoutStore(tmp_path / "store")
    mint_small(store, tmp_path)
    (tmp_path / "Dockerfile").write_text(text)
    with pytest.raises(DataError, match=r"^Dockerfile: .* is no stage, and no image of a registry"):
        build_identity(DockerBuild(tmp_path / "Dockerfile", tmp_path), store)


def test_an_image_is_found_by_what_it_was_made_of(tmp_path: Path) -> None:
    """With all that it boots from; anything else that goes into it gives another key."""
    wanted, one = project(tmp_path), feature(tmp_path)
    key = image_key(wanted, [one], "base", ["kit"])
    other = replace(one, options={"a": "b"})
    keys = {
        key,
        image_key(wanted, [], "base", ["kit"]),
        image_key(wanted, [other], "base", ["kit"]),
        image_key(wanted, [one, other], "base", ["kit"]),
        image_key(wanted, [other, one], "base", ["kit"]),
        image_key(wanted, [one], "other", ["kit"]),
        image_key(wanted, [one], "base", ["other"]),
        image_key(replace(wanted, remote_user="ada"), [one], "base", ["kit"]),
    }
    assert len(keys) == 8
    store = LayoutStore(tmp_path / "store")
    mint_small(store, tmp_path)
    assert find_image(store, key) is None
    mint_small(store, tmp_path, "made")
    note_image(store, key, digest_of(store, "made"))
    assert find_image(store, key) == digest_of(store, "made")
    root = BootAnnotations.parse(store.read_manifest(digest_of(store, "made")).annotations).root
    assert root
    store.blob_path(root).unlink()
    assert find_image(store, key) is None


def test_an_image_cannot_say_what_it_was_made_of(tmp_path: Path) -> None:
    """Labels are anybody's; what was built here is noted, until it has no name; a note that is damaged is none."""
    key = image_key(project(tmp_path), [], "base", ["kit"])
    store = LayoutStore(tmp_path / "store")
    image = Image(LAYER)
    image.config["config"]["Labels"] = {"io.shed.devcontainer": key}
    mint_archive(store, image.archive(tmp_path / "made.tar"), "another", kit=small_kit(store))
    assert find_image(store, key) is None
    mint_small(store, tmp_path, "mine")
    note_image(store, key, digest_of(store, "mine"))
    note_image(store, digest_bytes(b"other"), DIGEST)
    assert find_image(store, key) == digest_of(store, "mine")
    store.untag("mine")
    assert find_image(store, key) is None
    (store.root / FILE).write_text("[")
    assert find_image(store, key) is None
    note_image(store, key, digest_of(store, "another"))
    assert find_image(store, key) == digest_of(store, "another")


def test_the_base_is_its_manifest(tmp_path: Path) -> None:
    """Another image that names the config of a base is another base."""
    store = LayoutStore(tmp_path / "store")
    mint_small(store, tmp_path)
    manifest = store.read_manifest(digest_of(store))
    data = replace(manifest, layers=()).encode()
    digest = store.put_bytes(data)
    store.publish(Descriptor(media.MANIFEST, digest, len(data)), "lies")
    assert identity.base_identity("lies", store) != identity.base_identity("base", store)


def test_features_of_folders(tmp_path: Path) -> None:
    """They bring those that they depend on, each once; one that is elsewhere or comes by other means is refused."""
    place = tmp_path / ".devcontainer"
    features: dict[str, dict[str, Any]] = {"one": {"dependsOn": {"./two": {}}}, "two": {}}
    for name, says in features.items():
        (place / name).mkdir(parents=True)
        for path, data in feature_files(name, "true", **says).items():
            (place / name / path).write_bytes(data)
    store = LayoutStore(tmp_path / "store")

    def resolve(*names: str) -> list[str]:
        wanted = project(tmp_path, features={name: {} for name in names})
        scratch = Path(tempfile.mkdtemp(dir=tmp_path))
        return [each.name for each in Resolver(wanted, scratch, store, {}, Progress()).run()]

    assert resolve("./one", "./two") == ["./two", "./one"]
    (tmp_path / "out").mkdir()
    (place / "link").symlink_to("../out")
    for name, wrong in {
        "../out": "not below the project's folder",
        "./link": "not below the project's folder",
        "./absent": "not a folder of the project",
        "https://example.com/devcontainer-feature-x.tgz": "only features of registries and folders",
        "node": "names no registry",
        "devcontainers/features/node:1": "names no registry",
        "ghcr.io/a b": "not a repository",
    }.items():
        with pytest.raises(UsageError, match=wrong):
            resolve(name)
    (place / "two/install.sh").unlink()
    with pytest.raises(DataError, match=r"has no install\.sh"):
        resolve("./one")


def test_what_all_features_may_come_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of all together, and names, however many of them mean the same."""
    place = tmp_path / ".devcontainer"
    for name in ("one", "two"):
        (place / name).mkdir(parents=True)
        for path, data in feature_files(name, f"true {'x' * 5000}").items():
            (place / name / path).write_bytes(data)
    store = LayoutStore(tmp_path / "store")

    def resolve(*names: str) -> int:
        wanted = project(tmp_path, features={name: {} for name in names})
        scratch = Path(tempfile.mkdtemp(dir=tmp_path))
        return len(Resolver(wanted, scratch, store, {}, Progress()).run())

    monkeypatch.setattr(resolve_module, "MOST_UNPACKED", 8000)
    assert resolve("./one") == resolve("./two") == 1
    with pytest.raises(DataError, match="unpacks to more than"):
        resolve("./one", "./two")
    monkeypatch.setattr(resolve_module, "MOST_UNPACKED", 1 << 30)
    with pytest.raises(UsageError, match="more than 100 names of features"):
        resolve(*(f"./{'./' * number}one" for number in range(101)))


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"mediaType": "application/vnd.oci.image.config.v1+json"}},
        {"config": None},
        {"layers": []},
        {"layers": [{}, {}]},
        {"layers": [{"mediaType": "application/x", "digest": DIGEST, "size": 1}]},
        {"layers": [{"mediaType": LAYER_TYPE, "digest": DIGEST, "size": MOST_ARCHIVE + 1}]},
        {"layers": [{"mediaType": LAYER_TYPE, "digest": "sha256:x", "size": 1}]},
    ],
)
def test_manifests_that_are_no_feature(change: dict[str, Any]) -> None:
    """Images, other artifacts, and archives that are too large."""
    document = {
        "config": {"mediaType": CONFIG_TYPE},
        "layers": [{"mediaType": LAYER_TYPE, "digest": DIGEST, "size": 1}],
    }
    assert _layer(json.dumps(document).encode(), "feature x").digest == DIGEST
    with pytest.raises(DataError):
        _layer(json.dumps({**document, **change}).encode(), "feature x")


def test_names_of_the_store(tmp_path: Path) -> None:
    """NAME and NAME:latest mean an image of the store; another tag does not."""
    store = LayoutStore(tmp_path / "store")
    mint_small(store, tmp_path)
    assert identity.stored("base", store) == identity.stored("base:latest", store) == digest_of(store)
    assert identity.stored("base:1", store) is None
    assert identity.stored("r.example/base", store) is None
