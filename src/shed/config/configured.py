"""Which images a configuration names."""

from __future__ import annotations

from shed.config.server import Settings


def is_configured(settings: Settings, image: str) -> bool:
    """Return whether `image` is named by the configuration, or can only be an image of the store.

    If not, it is a reference to any registry.
    """
    return image in settings.image_aliases or image == settings.default_image or not is_remote(image)


def is_remote(reference: str) -> bool:
    """Return whether `reference` can only be an image of a registry.  A plain name is an image of the store."""
    return "/" in reference or ":" in reference.removeprefix("sha256:")


def configured_images(settings: Settings) -> dict[str, str]:
    """Return the references of images in the configuration, by the key of the setting."""
    aliases = {f"image_aliases.{name}": reference for name, reference in settings.image_aliases.items()}
    return {"default_image": settings.reference(settings.default_image), **aliases}
