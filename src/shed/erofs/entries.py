"""The tree a writer is given: `shed.entries`, the ground that erofs and oci share."""

from shed.entries import Content, Entry

__all__ = ["Content", "Entry"]
