"""Text of others, on its way to a terminal or into a log: what a terminal would obey is shown, and not obeyed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re


def visible(text: str) -> str:
    r"""Return `text` in one line, with ``\x1b``, ``\n`` or ``\u202e`` for whatever is not to be printed.

    That is all of C0, DEL and C1, what changes the direction of writing, other format characters, line separators,
    unassigned characters, and lone surrogates, which stand for bytes that are no UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def visible_lines(text: str) -> str:
    """Return `text` as `visible` does, but for the ends of its lines and its tabs."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


class Watched:
    """Bytes that come in pieces, such as a console's, as text for a terminal: `visible_lines`, without the colours.

    What is cut off at the end of a piece, a character or a sequence, comes with the next one.
    """

    def __init__(self) -> None:
        import codecs  # noqa: PLC0415  only those who watch need these two
        import re  # noqa: PLC0415

        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._colour: re.Pattern[str] = re.compile(r"\x1b\[[0-9;]{0,29}m")
        self._begun: re.Pattern[str] = re.compile(r"(?:\r|\x1b(?:\[[0-9;]{0,29})?)\Z")
        self._rest = ""

    def feed(self, data: bytes, *, last: bool = False) -> str:
        """Return what of `data`, and of what was left before, can be shown; all of it when it is the `last`."""
        text = self._rest + self._decoder.decode(data, last)
        begun = None if last else self._begun.search(text)
        end = len(text) if begun is None else begun.start()
        self._rest = text[end:]
        return visible_lines(self._colour.sub("", text[:end]).replace("\r\n", "\n"))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte, by surrogateescape
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
