"""Text of others, on its way to a terminal or into a log: what a terminal would obey is shown, and not obeyed."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Return `text` in one line, with ``\x1b``, ``\n`` or ``\u202e`` for whatever is not to be printed.

    That is all of C0, DEL and C1, what changes the direction of writing, other format characters, line separators, unassigned
    characters, and lone surrogates, which stand for bytes that are no UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def visible_lines(text: str) -> str:
    """Return `text` as `visible` does, but for the ends of its lines and its tabs."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte, by surrogateescape
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
