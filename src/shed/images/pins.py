"""Pins: who needs an image, so that it is neither removed nor pruned.

Those who need images (sheds, snapshots) live above this folder; they hand in what looks for pins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shed.errors import ShedError
from shed.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Pin:
    """Somebody who needs an image."""

    digest: Digest
    """Of its manifest."""
    holder: str
    """Who, for messages: ``shed 'dev'``."""
    hint: str
    """What to do when the image's manifest cannot be read."""
    strict: bool = False
    """Whether a manifest that is not here is a failure: what else the holder needs is then unknown."""


FindPins = Callable[[], tuple[list[Pin], list[ShedError]]]
"""Looks up who needs which image; also returns an error for each record that cannot be read."""
