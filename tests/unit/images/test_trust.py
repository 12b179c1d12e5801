"""An image cannot bring its own kernel unseen: what boots is known by digest; and honest users are not asked.

On commit 6aee119 every image booted with whatever kernel it named; there is no `shed.images.trust` to import.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from shed.checks import Status
from shed.config.paths import Paths
from shed.config.server import ConfigError, Settings, parse_settings
from shed.errors import ConflictError, DataError
from shed.images import references, trust
from shed.images.annotations import INITRD_KEY, KERNEL_KEY
from shed.images.bootkit.build import save_kit
from shed.images.load import load_images
from shed.images.pull import pull_image
from shed.images.pull_policy import find_or_pull
from shed.images.resolve import resolve_image
from shed.images.save import save_to_file
from shed.oci.digest import digest_bytes
from shed.oci.manifest import Manifest
from shed.oci.registry.client import Repository
from shed.oci.store import LayoutStore
from shed.progress import Progress
from shed.server.doctor.host import Host
from shed.server.doctor.storage import kernels
from support.images.minted import digest_of, mint_sound, small_kit, variant
from support.servers.doctor import found

EVIL = b"evil kernel"


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A store with an image called base, built here."""
    store = LayoutStore(tmp_path / "mine")
    mint_sound(store, tmp_path)
    return store


def bring(store: LayoutStore, name: str = "evil", key: str = KERNEL_KEY, data: bytes = EVIL) -> None:
    """Have an image in the store that is base with another kernel, as a pull would have it."""
    variant(store, name, {key: store.put_bytes(data)})


def forget(store: LayoutStore) -> None:
    """Make the store one of before."""
    (store.root / trust.FILE).unlink()


@pytest.mark.parametrize(("key", "what"), [(KERNEL_KEY, "kernel"), (INITRD_KEY, "initrd")])
def test_an_image_that_brings_its_own_is_refused(store: LayoutStore, key: str, what: str) -> None:
    """With one sentence that names the image and the digest, and says how to trust it; saying so once is enough."""
    bring(store, key=key)
    with pytest.raises(
        ConflictError, match=f"image evil brings the {what} {digest_bytes(EVIL)}, which this host does not know"
    ) as caught:
        resolve_image(store, "evil")
    assert caught.value.code == "KERNEL_NOT_TRUSTED"
    assert "shed image trust evil" in (caught.value.hint or "")
    assert "trusted_kernels in server.yaml" in (caught.value.hint or "")
    assert digest_bytes(EVIL) in trust.add_image(store, "evil", "the test")
    assert resolve_image(store, "evil").name == "evil"


def test_what_was_built_here_is_known(store: LayoutStore) -> None:
    """Images of this host's kits, the earlier ones too."""
    assert resolve_image(store, "base").name == "base"
    save_kit(store, replace(small_kit(store), kernel=store.put_bytes(b"next kernel")))
    bring(store, "next", data=b"next kernel")
    assert resolve_image(store, "next").name == "next"
    assert resolve_image(store, "base").name == "base"


def test_the_configuration_may_list_digests(store: LayoutStore) -> None:
    """As many as there are; anything that is no digest is refused."""
    bring(store)
    settings = parse_settings(f"trusted_kernels: ['{digest_bytes(EVIL)}']", Path("server.yaml"))
    assert resolve_image(store, "evil", trusted=settings.trusted_kernels).name == "evil"
    for wrong in ("any", "[any]", "[sha256:12]", "true"):
        with pytest.raises(ConfigError, match="trusted_kernels"):
            parse_settings(f"trusted_kernels: {wrong}", Path("server.yaml"))


def test_a_store_of_before_goes_on_and_what_comes_after_is_asked_about(store: LayoutStore, tmp_path: Path) -> None:
    """Images that only a shed needs are in no list; they are found too.  It happens once."""
    bring(store, "theirs", data=b"their kernel")
    pinned = digest_of(store, "theirs")
    store.untag("theirs")
    store.unlist([pinned])
    forget(store)
    assert resolve_image(store, "base").name == "base"
    bring(store)
    with pytest.raises(ConflictError):
        resolve_image(store, "evil")
    bring(store, "again", data=b"their kernel")
    assert resolve_image(store, "again").name == "again"


def test_nothing_that_comes_in_is_taken_for_old(store: LayoutStore, tmp_path: Path) -> None:
    """The first thing that happens to a store of before may be a hostile file; a new store knows nothing."""
    bring(store)
    save_to_file(store, ["evil"], tmp_path / "evil.tar", Progress())
    before, new = LayoutStore(tmp_path / "before"), LayoutStore(tmp_path / "new")
    mint_sound(before, tmp_path)
    forget(before)
    for theirs in (before, new):
        load_images(theirs, tmp_path / "evil.tar")
        with pytest.raises(ConflictError, match="brings the kernel"):
            resolve_image(theirs, "evil")
    load_images(new, tmp_path / "evil.tar", trust_kernel=True)
    assert resolve_image(new, "evil").name == "evil"
    assert resolve_image(before, "base").name == "base"


def test_a_pull_looks_first(store: LayoutStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is fetched, what is here is noted."""
    forget(store)
    monkeypatch.setattr(
        Repository,
        "__enter__",
        lambda self: pytest.fail("too early") if not (store.root / trust.FILE).exists() else 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        pull_image(store, "registry.example/evil:1")
    assert trust.prepare(store)


def test_what_the_configuration_names_is_trusted_and_nothing_else(
    store: LayoutStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image that was pulled by that very reference: not one of the same name, and not one that the user named."""
    reference = "registry.example/base:1"
    bring(store)
    for settings, name in (
        (Settings(image_aliases={"ours": reference}), "ours"),
        (Settings(image_aliases={}), reference),
    ):
        references.record(store, reference, digest_of(store, "evil"))
        forget(store)
        evil = store.root / "tags/evil.json"
        kept = evil.read_bytes()
        (store.root / trust.FILE).write_text(json.dumps({"digests": {}}))
        find_or_pull(store, name, settings, progress=Progress())
        assert (digest_bytes(EVIL) in trust.prepare(store)) == (name == "ours")
        assert evil.read_bytes() == kept
    (store.root / trust.FILE).write_text(json.dumps({"digests": {}}))
    find_or_pull(store, "evil", Settings(image_aliases={"ours": reference}), progress=Progress())
    assert trust.prepare(store) == {}


@pytest.mark.parametrize("data", [b"", b"[]", b'{"digests": 7}', b"\xff"])
def test_a_damaged_list_trusts_nobody(store: LayoutStore, data: bytes) -> None:
    """It is told, and nothing boots: what somebody broke may be what kept something out."""
    (store.root / trust.FILE).write_bytes(data)
    with pytest.raises(DataError, match=r"trusted\.json") as caught:
        resolve_image(store, "base")
    assert caught.value.hint
    with pytest.raises(DataError):
        trust.add_image(store, "base", "the test")
    assert (store.root / trust.FILE).read_bytes() == data


def test_what_is_no_digest_in_the_list_is_passed_over(store: LayoutStore) -> None:
    """As unknown members are."""
    (store.root / trust.FILE).write_text(json.dumps({"digests": {"any": "no", digest_bytes(EVIL): "yes"}, "more": 1}))
    assert trust.prepare(store) == {digest_bytes(EVIL): "yes"}


def test_the_doctor_names_them(store: LayoutStore) -> None:
    """`unknown` says what it lists; of an image that cannot be booted, nothing."""
    bring(store)
    assert trust.unknown(store, "base", ()) == []
    assert trust.unknown(store, "evil", ()) == [digest_bytes(EVIL)]
    assert trust.unknown(store, "evil", [digest_bytes(EVIL)]) == []
    manifest = store.put_bytes(Manifest(store.read_manifest(digest_of(store)).config, ()).encode())
    assert trust.unknown(store, manifest, ()) == []
    (store.root.parent / "images").symlink_to(store.root)
    host = Host(Paths(store.root.parent, store.root.parent / "run"), config=store.root.parent / "server.yaml")
    host.config.write_text("{}")  # type: ignore[union-attr]
    row = found(host, kernels, "image evil")
    assert (row.status, digest_bytes(EVIL) in row.detail) == (Status.WARN, True)
    assert "shed image trust evil" in row.hint
