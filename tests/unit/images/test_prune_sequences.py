"""Random sequences of everything that happens to a store, pulls too, with kills at random moments, checked after each
step.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shed.config.paths import Paths
from shed.errors import ConflictError
from shed.images import references
from shed.images.annotations import blobs_of
from shed.images.bootkit.build import save_kit
from shed.images.prune import Plan, prune
from shed.images.pull import pull_image
from shed.images.push import push_image
from shed.images.tags import remove_image
from shed.oci import media
from shed.oci.descriptor import Descriptor
from shed.oci.digest import Digest, digest_bytes
from shed.oci.leases import unpruned
from shed.oci.store import LayoutStore
from shed.sheds.pins import pins
from support.images.minted import mint_small, small_kit
from support.images.stored import image_parts, put_image, put_shed, put_snapshot
from support.layers.tars import file, tar
from support.registries.docker_registry import docker_registry, no_credentials

CONTENTS = st.sampled_from(["red", "green", "blue"])
NAMES = st.sampled_from(["base", "full", "mine"])
SHEDS = st.sampled_from(["one", "two"])
CONFIGURED = {"default_image": "example.org/red:v1"}


@pytest.fixture(scope="module", autouse=True)
def _published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A registry with two of the images that are minted."""
    folder = tmp_path_factory.mktemp("published")
    store = LayoutStore(folder / "images")
    save_kit(store, small_kit(store))
    with pytest.MonkeyPatch.context() as patch, docker_registry(folder / "registry") as server:
        no_credentials(patch, folder)
        for content in ("red", "green"):
            digest = mint_small(store, folder, content, tar(file(content))).manifest_digest
            reference = f"{server.address}/shed/{content}:v1"
            push_image(store, content, reference)
            Storage.published[reference] = digest
        yield


class Storage(RuleBasedStateMachine):
    """A store and what needs it, beside a model of which image must be whole."""

    published: ClassVar[dict[str, Digest]] = {}

    @initialize()
    def make(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sequences-"))
        self.paths = Paths(self.folder / "data", self.folder / "run")
        self.store = LayoutStore(self.paths.images)
        kit = small_kit(self.store)
        save_kit(self.store, kit)
        self.kit = {kit.kernel, kit.initrd, kit.runtime}
        self.blobs: dict[Digest, set[Digest]] = {}
        self.optional: dict[Digest, set[Digest]] = {}
        self.tags: dict[str, Digest] = {}
        self.sheds: dict[str, Digest] = {}
        self.snapshots: dict[str, Digest] = {}
        self.configured: Digest | None = None
        self.leases: list[tuple[Any, Digest]] = []

    def teardown(self) -> None:
        for held, _ in self.leases:
            held.__exit__(None, None, None)
        shutil.rmtree(self.folder)

    def needed(self) -> set[Digest]:
        """Return the images that must be whole."""
        leased = {digest for _, digest in self.leases}
        configured = {self.configured} if self.configured else set()
        return {*self.tags.values(), *self.sheds.values(), *self.snapshots.values(), *leased, *configured}

    def wanted(self) -> set[Digest]:
        """Return the blobs that must not go."""
        return set(self.kit).union(*(self.blobs[digest] for digest in self.needed()))

    def must_be_here(self) -> set[Digest]:
        """Return the blobs that must be there."""
        return set(self.kit).union(*(self.blobs[digest] - self.optional[digest] for digest in self.needed()))

    @rule(content=CONTENTS, name=NAMES | st.none(), layers=st.integers(0, 2))
    def load(self, content: str, name: str | None, layers: int) -> None:
        digest = put_image(self.store, content, name, layers=layers)
        self.know(digest)
        if name is not None:
            self.tags[name] = digest

    @rule(content=CONTENTS, name=NAMES)
    def mint(self, content: str, name: str) -> None:
        digest = mint_small(self.store, self.folder, name, tar(file(content))).manifest_digest
        self.know(digest)
        self.tags[name] = digest

    @rule(data=st.data(), name=NAMES, with_layers=st.booleans())
    def pull(self, data: st.DataObject, name: str, with_layers: bool) -> None:
        reference = data.draw(st.sampled_from(sorted(self.published)))
        digest = pull_image(self.store, reference, tag=name, with_layers=with_layers).digest
        assert digest == self.published[reference]
        self.know(digest, with_layers=with_layers)
        self.tags[name] = digest

    def know(self, digest: Digest, *, with_layers: bool = True) -> None:
        """Note what the image consists of, and which layers need not be here because nobody asked for them."""
        manifest = self.store.read_manifest(digest)
        self.blobs[digest] = blobs_of(digest, manifest)
        self.optional[digest] = (
            set() if with_layers else {layer.digest for layer in manifest.layers if not self.store.has(layer.digest)}
        )

    @precondition(lambda self: self.tags)
    @rule(data=st.data(), name=NAMES)
    def tag(self, data: st.DataObject, name: str) -> None:
        digest = self.tags[data.draw(st.sampled_from(sorted(self.tags)))]
        with self.store.lease() as lease:
            lease.image(digest)
            self.store.publish(Descriptor(media.MANIFEST, digest, self.store.size(digest)), name)
        self.tags[name] = digest

    @precondition(lambda self: self.tags)
    @rule(data=st.data())
    def record_reference(self, data: st.DataObject) -> None:
        self.configured = self.tags[data.draw(st.sampled_from(sorted(self.tags)))]
        references.record(self.store, CONFIGURED["default_image"], self.configured)

    @precondition(lambda self: self.tags)
    @rule(data=st.data(), whole=st.booleans())
    def remove(self, data: st.DataObject, whole: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.tags)))
        digest = self.tags[name]
        pinned = digest in {*self.sheds.values(), *self.snapshots.values()}
        try:
            removed = remove_image(self.store, digest if whole else name, pins(self.paths), CONFIGURED)
        except ConflictError:
            assert pinned
            return
        assert not pinned
        expected = {tag for tag, found in self.tags.items() if found == digest} if whole else {name}
        assert set(removed.tags) == expected
        self.tags = {tag: found for tag, found in self.tags.items() if tag not in expected}
        if CONFIGURED["default_image"] in removed.references:
            self.configured = None

    @rule(content=CONTENTS, layers=st.integers(0, 2), name=SHEDS)
    def create(self, content: str, layers: int, name: str) -> None:
        if name not in self.sheds:
            digest = put_image(self.store, content, layers=layers)
            with unpruned(self.store.root):
                put_shed(self.paths, name, digest)
            self.know(digest)
            self.sheds[name] = digest

    @precondition(lambda self: self.sheds)
    @rule(name=SHEDS)
    def delete(self, name: str) -> None:
        if self.sheds.pop(name, None):
            shutil.rmtree(self.paths.instances / name)

    @precondition(lambda self: self.sheds)
    @rule(data=st.data(), name=SHEDS)
    def turn_into_a_snapshot(self, data: st.DataObject, name: str) -> None:
        if name not in self.snapshots:
            shed = data.draw(st.sampled_from(sorted(self.sheds)))
            self.snapshots[name] = self.sheds[shed]
            put_snapshot(self.paths, name, self.snapshots[name])
            self.delete(shed)

    @precondition(lambda self: self.snapshots)
    @rule(name=SHEDS)
    def delete_snapshot(self, name: str) -> None:
        if self.snapshots.pop(name, None):
            shutil.rmtree(self.paths.snapshots / name)

    @precondition(lambda self: self.tags)
    @rule(data=st.data())
    def take_lease(self, data: st.DataObject) -> None:
        digest = self.tags[data.draw(st.sampled_from(sorted(self.tags)))]
        held = self.store.lease()
        held.__enter__().image(digest)
        self.leases.append((held, digest))

    @precondition(lambda self: self.leases)
    @rule()
    def end_lease(self) -> None:
        self.leases.pop()[0].__exit__(None, None, None)

    @rule()
    def prune(self) -> None:
        preview = self.pruned(dry_run=True)
        assert self.pruned() == preview
        self.nothing_else_is_left()

    @rule(moment=st.integers(1, 25))
    def kill_a_prune(self, moment: int) -> None:
        if killed(self.pruned, moment):
            self.check()
            self.pruned()
        self.nothing_else_is_left()

    @rule(content=CONTENTS, name=NAMES, layers=st.integers(1, 3), moment=st.integers(1, 60))
    def kill_a_load(self, content: str, name: str, layers: int, moment: int) -> None:
        before = self.tags.get(name)
        killed(lambda: put_image(self.store, content, name, layers=layers), moment)
        tag = self.store.tag(name)
        after = tag.digest if tag else None
        manifest = image_parts(content, layers=layers)[0]
        assert after in (before, digest_bytes(manifest.encode()))
        if after is not None and after != before:
            self.tags[name] = after
            self.know(after)

    @rule(data=st.data(), name=NAMES, with_layers=st.booleans(), moment=st.integers(1, 80))
    def kill_a_pull(self, data: st.DataObject, name: str, with_layers: bool, moment: int) -> None:
        reference, before = data.draw(st.sampled_from(sorted(self.published))), self.tags.get(name)
        killed(lambda: pull_image(self.store, reference, tag=name, with_layers=with_layers), moment)
        tag = self.store.tag(name)
        after = tag.digest if tag else None
        assert after in (before, self.published[reference])
        if after is not None and after != before:
            self.tags[name] = after
            self.know(after, with_layers=with_layers)

    def pruned(self, *, dry_run: bool = False) -> Plan:
        return prune(self.store, lambda: pins(self.paths), CONFIGURED, dry_run=dry_run)

    def nothing_else_is_left(self) -> None:
        """After a prune there is what is needed, and not one blob more."""
        assert self.must_be_here() <= set(self.store.inventory()) <= self.wanted()
        assert not list(self.store.blobs.glob(".partial-*"))
        assert {entry.digest for entry in self.store.index().manifests} == self.needed()

    @invariant()
    def check(self) -> None:
        """What is needed is whole, a prune would take all else, the index lists every tag, and every blob is what its
        name says.
        """
        present = self.store.inventory()
        garbage = {item.digest for item in self.pruned(dry_run=True).garbage if item.kind != "partial"}
        assert garbage == present.keys() - self.wanted()
        assert self.must_be_here() <= present.keys()
        listed = {entry.digest for entry in self.store.index().manifests}
        assert set(self.tags.values()) <= listed
        for digest in present:
            assert digest_bytes(self.store.blob_path(digest).read_bytes()) == digest


def killed(work: Callable[[], object], moment: int) -> bool:
    """Do `work` in a child that is killed at its `moment`-th change of a name or sync of a file; tell whether it came
    to that.
    """
    child = os.fork()
    if not child:
        left = moment

        def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
            def called(*args: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **options)

            return called

        Path.rename, Path.unlink, os.fsync = deadly(Path.rename), deadly(Path.unlink), deadly(os.fsync)  # type: ignore[method-assign]
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


Storage.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
TestStorage = pytest.mark.slow(pytest.mark.timeout(900)(Storage.TestCase))
