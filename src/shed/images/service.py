# ruff: noqa: PLC0415  each method imports what it needs: a server starts, and a command answers, without the rest
"""The images of one store: all that a server, or a command that does without one, does with them.

`Images` knows the store, what the settings say about images, and who needs them.  The work itself is in the modules
beside this one; they take a `LayoutStore` and can be used without `Images`.  Methods block: call them in a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shed.progress import Progress, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import BinaryIO

    from shed.config.server import Settings
    from shed.errors import ShedError
    from shed.images.bootkit.kit import Kit
    from shed.images.builders.base import Builder, BuildRequest, Show
    from shed.images.builders.bases import Base
    from shed.images.devcontainer.build import Prepared
    from shed.images.devcontainer.project import Project
    from shed.images.listing import ImageInfo, Step
    from shed.images.load import Loaded
    from shed.images.mint import MintResult
    from shed.images.pins import FindPins, Pin
    from shed.images.prune import Plan
    from shed.images.pull import PullResult
    from shed.images.pull_policy import Pulled
    from shed.images.push import PushResult
    from shed.images.resolve import BootImage
    from shed.images.save import Saved
    from shed.images.sources import SourceRef
    from shed.images.tags import Removed
    from shed.images.verify import Verification
    from shed.images.writers import RootWriter
    from shed.oci.content import Archive
    from shed.oci.descriptor import Platform
    from shed.oci.digest import Digest
    from shed.oci.store import LayoutStore


class Images:
    """The images in the store at `folder`, which need not exist yet.

    `settings` are the server's (the defaults unless given); `find_pins` says who needs images.  Without it nothing can
    be removed: `list_all`, `inspect`, `remove` and `prune` raise `RuntimeError`.
    """

    def __init__(self, folder: Path, settings: Settings | None = None, find_pins: FindPins | None = None) -> None:
        self._folder = folder
        self._given_settings = settings
        self._find_pins = find_pins

    @property
    def store(self) -> LayoutStore:
        """The store, whose limits are those of the settings."""
        from shed.oci.store import LayoutStore

        return LayoutStore(self._folder, self._settings.limits)

    # looking

    def list_all(self) -> tuple[list[ImageInfo], list[str]]:
        """Return all images, and a warning for each record that should say who needs one and cannot be read."""
        from shed.images.listing import list_images

        pins, errors = self._look_for_pins()
        return list_images(self.store, pins, self._configured), [error.message for error in errors]

    def inspect(self, reference: str) -> dict[str, Any]:
        """Return all that is known of the image `reference`.  Raises `NotFoundError` and `DataError`."""
        from shed.images.listing import inspect_image

        return inspect_image(self.store, reference, self._look_for_pins()[0], self._configured)

    def history(self, reference: str) -> list[Step]:
        """Return the steps that made the image, the last one first.  Raises `NotFoundError` and `DataError`."""
        from shed.images.listing import image_history

        return image_history(self.store, reference)

    def verify(
        self, reference: str, *, deep: bool = False, progress: Progress | None = None, stop: Stop | None = None
    ) -> Verification:
        """Read the image again; see `verify_image`.  Raises `NotFoundError`; what is wrong is in the result."""
        from shed.images.verify import verify_image

        return verify_image(self.store, reference, deep=deep, progress=progress, stop=stop)

    def resolve(self, reference: str) -> BootImage:
        """Return the files that a VM boots from.  Raises `NotFoundError`, `DataError` and `ConflictError`."""
        from shed.images.resolve import resolve_image

        return resolve_image(self.store, reference, trusted=self._settings.trusted_kernels)

    # names, trust, removal

    def tag(self, source: str, name: str) -> Digest:
        """Give the image `source` another name; return its digest.  Raises `UsageError` and `NotFoundError`."""
        from shed.images.tags import tag_image

        return tag_image(self.store, source, name)

    def trust(self, reference: str, why: str) -> list[Digest]:
        """Let the kernel and initrd of an image boot here from now on; return their digests.

        Raises `NotFoundError` and `DataError`.
        """
        from shed.images.trust import add_image

        return add_image(self.store, reference, why)

    def remove(self, reference: str) -> Removed:
        """Remove the names of an image, as `remove_image` does.  Raises `ConflictError` (IMAGE_IN_USE)."""
        from shed.images.tags import remove_image

        return remove_image(self.store, reference, self._all_pins(), self._configured)

    def prune(self, *, dry_run: bool = False, pins: Callable[[], Iterable[Pin]] | None = None) -> Plan:
        """Remove what nobody needs, or only say what that is; see `shed.images.prune`.

        `pins`, when given, is asked instead of the pins that this service knows.  Raises `ShedError` when it is not
        known for certain who needs what.
        """
        from shed.images.prune import prune

        return prune(self.store, pins or self._all_pins, self._configured, dry_run=dry_run)

    def sweep(self) -> int:
        """Remove what killed downloads and builds have left; return how many files."""
        return self.store.sweep()

    # registries

    def pull(
        self,
        reference: str,
        *,
        tag: str | None = None,
        platform: str | None = None,
        with_layers: bool = False,
        insecure: bool = False,
        trust_kernel: bool = False,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> PullResult:
        """Pull an image, as many blobs at a time as the settings say; see `pull_image`.

        `platform` is written ``OS/ARCH[/VARIANT]``.
        """
        from shed.images.pull import pull_image
        from shed.oci.descriptor import Platform

        return pull_image(
            self.store,
            reference,
            tag=tag,
            platform=None if platform is None else Platform.parse(platform),
            with_layers=with_layers,
            insecure=insecure,
            trust_kernel=trust_kernel,
            concurrency=self._settings.pull_concurrency,
            progress=progress,
            stop=stop,
        )

    def push(
        self,
        source: str,
        destination: str,
        *,
        insecure: bool = False,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> PushResult:
        """Push an image to ``registry/repository[:tag]``; see `push_image`."""
        from shed.images.push import push_image

        return push_image(self.store, source, destination, insecure=insecure, progress=progress, stop=stop)

    def find_or_pull(self, name: str, progress: Progress, stop: Stop | None = None) -> Digest:
        """Return the manifest digest of the image `name`; pull it first when the pull policy says so.

        See `shed.images.pull_policy`.
        """
        from shed.images.pull_policy import find_or_pull

        return find_or_pull(self.store, name, self._settings, progress=progress, stop=stop)

    def pull_configured(self, progress: Callable[[], Progress], *, variant: str | None = None) -> list[Pulled]:
        """Pull what the settings name and is not here, with a `progress` for each; see `pull_all_configured`."""
        from shed.images.pull_policy import pull_all_configured

        return pull_all_configured(self.store, self._settings, variant=variant, progress=progress)

    # files and builds

    def save(self, references: Sequence[str], output: BinaryIO | Path, progress: Progress | None = None) -> list[Saved]:
        """Write images to a file, or to what is open as `output`; see `shed.images.save`."""
        from pathlib import Path

        from shed.images.save import save_images, save_to_file

        if isinstance(output, Path):
            return save_to_file(self.store, references, output, progress)
        return save_images(self.store, references, output, progress)

    def load(
        self,
        source: Path | str,
        *,
        tag: str | None = None,
        force: bool = False,
        trust_kernel: bool = False,
        progress: Progress | None = None,
    ) -> list[Loaded]:
        """Read images from a file, a folder, or stdin (``-``); see `shed.images.load`."""
        from shed.images.load import load_images

        return load_images(self.store, source, tag=tag, force=force, trust_kernel=trust_kernel, progress=progress)

    def kit(self) -> Kit:
        """Return the boot kit that new images get.  Raises `NotFoundError` (NO_BOOT_KIT)."""
        from shed.images.bootkit.kit import load_kit

        return load_kit(self.store)

    def build_kit(self, *, locked: bool = False, progress: Progress) -> Kit:
        """Make the boot kit from Debian packages; see `shed.images.bootkit.build`."""
        from shed.images.bootkit.build import build_kit

        return build_kit(self.store, progress=progress, locked=locked)

    def mint(
        self,
        source: Archive | Path | str,
        name: str,
        *,
        kit: Kit,
        writer: RootWriter | None = None,
        platform: Platform | None = None,
        source_ref: str = "",
        force: bool = False,
        progress: Progress | None = None,
    ) -> MintResult:
        """Make the bootable image `name` of an ordinary one; see `shed.images.mint`.

        `source` is an archive that is open, or a file, a folder or ``-`` for stdin.
        """
        from pathlib import Path

        from shed.images.mint import mint, mint_archive

        options: dict[str, Any] = {"kit": kit, "writer": writer, "platform": platform, "source_ref": source_ref}
        options |= {"force": force, "progress": progress}
        if isinstance(source, Path | str):
            return mint_archive(self.store, source, name, **options)
        return mint(self.store, source, name, **options)

    def open_source(
        self, source: SourceRef, *, platform: Platform | None, insecure: bool = False, progress: Progress
    ) -> AbstractContextManager[Archive]:
        """Have an image that exists elsewhere as an archive, for `mint`; see `shed.images.sources`."""
        from shed.images.sources import open_source

        return open_source(source, store=self.store, platform=platform, insecure=insecure, progress=progress)

    def build_archive(
        self,
        builder: Builder,
        request: BuildRequest,
        show: Show | None,
        *,
        bases: Sequence[Base] = (),
        keep_in: Path | None = None,
    ) -> AbstractContextManager[Archive]:
        """Have what `builder` makes of a Containerfile as an archive, for `mint`; see `shed.images.builders.build`."""
        from shed.images.builders.build import built

        return built(builder, request, self.store, show, bases=bases, keep_in=keep_in)

    def prepare_project(
        self, project: Project, *, kit: Kit, writer: RootWriter | None = None, lock: bool = False, progress: Progress
    ) -> AbstractContextManager[Prepared]:
        """Have what a project's ``devcontainer.json`` names, to build its image; see `shed.images.devcontainer`."""
        from shed.images.devcontainer.build import prepare
        from shed.images.writers import default_writer

        return prepare(
            project, self.store, kit, writer or default_writer(kit.erofs_algorithms), lock=lock, progress=progress
        )

    def bases(self, request: BuildRequest) -> tuple[Base, ...]:
        """Return the images of this store that a build would build on.  Raises `UsageError`."""
        from shed.images.builders.bases import find_bases

        return find_bases(request.file, request.arguments(), self.store)

    @property
    def _settings(self) -> Settings:
        from shed.config.server import Settings

        return self._given_settings or Settings()

    @property
    def _configured(self) -> dict[str, str]:
        from shed.config.configured import configured_images

        return configured_images(self._settings)

    def _look_for_pins(self) -> tuple[list[Pin], list[ShedError]]:
        if self._find_pins is None:
            raise RuntimeError("these images were opened without saying who needs them")
        return self._find_pins()

    def _all_pins(self) -> list[Pin]:
        """Return who needs images.  Raises the first error: who cannot read all records must not remove anything."""
        pins, errors = self._look_for_pins()
        if errors:
            raise errors[0]
        return pins
