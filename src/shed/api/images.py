"""Images of the server's store.  An image is named by a tag, a digest or the reference it was pulled by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from shed.api.base import Answer, Body, Params, Timings, Warnings, says
from shed.names import MAX_TAG

ImageName = Annotated[str, Meta(min_length=1), says("The image: a tag, a digest, or the reference it was pulled by.")]
TagName = Annotated[
    str, says("A tag in the store.", pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", minLength=1, maxLength=MAX_TAG)
]
Digest = Annotated[str, says("`sha256:` and 64 hexadecimal digits.")]


class ImageParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One image."""

    image: ImageName


class Image(Answer, kw_only=True, frozen=True):
    """A tag, or an image without one."""

    name: Annotated[str, says("The tag; empty for an image without one.")] = ""
    digest: Annotated[str, says("Of its manifest; empty when the tag's file is damaged.")] = ""
    source_ref: Annotated[str, says("What it was made from.")] = ""
    size_bytes: Annotated[int, says("Of its blobs, also of those that other images share.")] = 0
    layers: Annotated[str, says("`full`, or `boot-only` when layers are not here.")] = ""
    bootable: Annotated[bool, says("Whether a shed can be made of it.")] = False
    updated_at: Annotated[str, says("When the tag was set, RFC 3339; empty without one.")] = ""
    warning: Annotated[str, says("What is wrong with it; empty when nothing is.")] = ""
    references: Annotated[list[str], says("What it was pulled by.")] = []
    in_use: Annotated[list[str], says("Who needs it, for example `shed 'dev'`.")] = []
    source: Annotated[
        str,
        says("`config` when the server's configuration names it, `dangling` when nothing needs it, else `user`."),
    ] = ""


class ImageList(Answer, kw_only=True, frozen=True):
    """All images: tags by name, then images without one by digest."""

    images: Annotated[list[Image], says("What there is.")] = []
    warnings: Warnings = []


class BootBlob(Answer, kw_only=True, frozen=True):
    """A file that a shed boots from."""

    digest: Digest = ""
    size_bytes: Annotated[int | None, says("Null when it is not here.")] = None
    path: Annotated[str | None, says("On the server's machine; null when it is not here.")] = None


class Layer(Answer, kw_only=True, frozen=True):
    """A layer of an image."""

    digest: Digest = ""
    media_type: Annotated[str, says("As its manifest says.")] = ""
    size_bytes: Annotated[int, says("As it is stored.")] = 0
    present: Annotated[bool, says("Whether it is here.")] = False


class ImageDetails(Answer, kw_only=True, frozen=True):
    """All that is known of an image.  The members after `warning` are empty when its config is not here."""

    name: Annotated[str, says("The name that it was found by.")] = ""
    names: Annotated[list[str], says("Its tags.")] = []
    references: Annotated[list[str], says("What it was pulled by.")] = []
    digest: Digest = ""
    source: Annotated[str, says("As in the list of images.")] = ""
    in_use: Annotated[list[str], says("Who needs it.")] = []
    source_ref: Annotated[str, says("What it was made from.")] = ""
    variant: Annotated[str, says("The name given to the build.")] = ""
    bootable: Annotated[bool, says("Whether a shed can be made of it.")] = False
    size_bytes: Annotated[int, says("Of its blobs.")] = 0
    logical_size_bytes: Annotated[int | None, says("Of the files in it; null when it is not told.")] = None
    build_tools: Annotated[str, says("What wrote the root file system.")] = ""
    boot_blobs: Annotated[dict[str, BootBlob], says("`kernel`, `initrd`, `runtime erofs` and `rootfs erofs`.")] = {}
    layers: Annotated[list[Layer], says("From the lowest up.")] = []
    annotations: Annotated[dict[str, str], says("Of its manifest.")] = {}
    warning: Annotated[str, says("What is wrong with it; empty when nothing is.")] = ""
    platform: Annotated[str, says("`OS/ARCHITECTURE`.")] = ""
    created: Annotated[Any, says("As its config says: RFC 3339, or null.")] = None
    config: Annotated[dict[str, Any], says("How containers of it would run, as its config says.")] = {}


class Step(Answer, kw_only=True, frozen=True):
    """One step in which an image was made."""

    created: Annotated[str, says("RFC 3339; empty when it is not told.")] = ""
    created_by: Annotated[str, says("The command.")] = ""
    comment: Annotated[str, says("What the builder noted.")] = ""
    layer: Annotated[str, says("Digest of the layer that it made; empty when it made none.")] = ""
    size_bytes: Annotated[int, says("Of that layer.")] = 0


class History(Answer, kw_only=True, frozen=True):
    """How an image was made."""

    steps: Annotated[list[Step], says("The last one first.")] = []


class RemovedImage(Answer, kw_only=True, frozen=True):
    """The names that were taken away.  The blobs stay until a prune."""

    digest: Annotated[str, says("Of the manifest; empty when the tag's file was damaged.")] = ""
    tags: Annotated[list[str], says("The tags that are gone.")] = []
    references: Annotated[list[str], says("The references that are forgotten.")] = []
    warnings: Annotated[list[str], says("What will be different from now on.")] = []


class TagImage(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Another name for an image."""

    image: ImageName
    name: TagName


class TaggedImage(Answer, kw_only=True, frozen=True):
    """The name that was given."""

    name: TagName = ""
    digest: Digest = ""


class TrustImage(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An image whose kernel and initrd may boot here from now on."""

    image: ImageName


class TrustedImage(Answer, kw_only=True, frozen=True):
    """What is trusted now."""

    digests: Annotated[list[str], says("Of its kernel and its initrd.")] = []


class VerifyImage(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An image to read again."""

    image: ImageName
    deep: Annotated[bool, says("Compare every file of the root file system with the layers.")] = False


class Check(Answer, kw_only=True, frozen=True):
    """One thing that was looked at."""

    name: Annotated[str, says("What.")] = ""
    status: Annotated[Literal["PASS", "FAIL", "SKIP"], says("What came of it.")] = "SKIP"
    detail: Annotated[str, says("What is wrong, or why it was skipped.")] = ""
    counts: Annotated[dict[str, int], says("How much was looked at: `bytes`, `inodes`, `files`, ….")] = {}


class Verification(Answer, kw_only=True, frozen=True):
    """What came of reading an image again."""

    name: Annotated[str, says("The name that it was found by.")] = ""
    digest: Digest = ""
    deep: Annotated[bool, says("As asked.")] = False
    valid: Annotated[bool, says("Whether no check failed.")] = False
    checks: Annotated[list[Check], says("In their order.")] = []
    timings: Timings = {}


class PushImage(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An image to push."""

    image: ImageName
    destination: Annotated[str, Meta(min_length=1), says("`REGISTRY/REPOSITORY[:TAG]`.")]
    insecure: Annotated[bool, says("Speak plain HTTP with the registry.")] = False


class Pushed(Answer, kw_only=True, frozen=True):
    """What was pushed."""

    source: Annotated[str, says("The image, as it was asked for.")] = ""
    destination: Annotated[str, says("Where to.")] = ""
    digest: Annotated[str, says("Of the image's manifest.")] = ""
    index_digest: Annotated[str, says("Of what the tag in the registry points at.")] = ""
    uploaded: Annotated[int, says("Blobs that were sent.")] = 0
    mounted: Annotated[int, says("Blobs that the registry took from another of its repositories.")] = 0
    exists: Annotated[int, says("Blobs that were there.")] = 0
    uploaded_bytes: Annotated[int, says("Bytes that were sent.")] = 0
    timings: Timings = {}


class PullImage(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An image to pull from a registry."""

    image: Annotated[str, Meta(min_length=1), says("The reference: `REGISTRY/REPOSITORY:TAG`, or with `@DIGEST`.")]
    tag: Annotated[str | None, says("The tag in the store; absent: the last part of the repository's path.")] = None
    platform: Annotated[str | None, says("`OS/ARCHITECTURE[/VARIANT]`; absent: the server's.")] = None
    with_layers: Annotated[bool, says("Also the layers, for derived images and for a push elsewhere.")] = False
    insecure: Annotated[bool, says("Speak plain HTTP with the registry.")] = False
    trust_kernel: Annotated[bool, says("Trust the kernel and the initrd of the image from now on.")] = False


class Pulled(Answer, kw_only=True, frozen=True):
    """What was pulled."""

    tag: Annotated[str, says("Empty when its name is another image's.")] = ""
    digest: Annotated[str, says("Of the image's manifest.")] = ""
    fetched: Annotated[int, says("Blobs that came.")] = 0
    exists: Annotated[int, says("Blobs that were here.")] = 0
    fetched_bytes: Annotated[int, says("Bytes that came.")] = 0
    timings: Timings = {}


class PruneImages(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A removal of what nobody needs."""

    dry_run: Annotated[bool, says("Only say what would go.")] = False


class PrunedBlob(Answer, kw_only=True, frozen=True):
    """A file of the store that goes."""

    kind: Annotated[str, says("`image` (a manifest), `blob`, `partial` (of a download) or `cache`.")] = ""
    digest: Digest = ""
    size_bytes: Annotated[int, says("On the disk.")] = 0
    docker_ref: Annotated[str | UnsetType, says("Of an image: what it was made from.", optional=True)] = UNSET


class PrunedImages(Answer, kw_only=True, frozen=True):
    """What went, or would go."""

    deleted: Annotated[list[PrunedBlob], says("Images first.")] = []
    images: Annotated[int, says("How many images.")] = 0
    size_bytes: Annotated[int, says("On the disk.")] = 0
