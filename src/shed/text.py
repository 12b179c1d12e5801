"""Text from outside, made safe for a terminal or a log: control characters are shown instead of obeyed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re


def visible(text: str) -> str:
    r"""Return `text` on one line, with an escape such as ``\x1b``, ``\n`` or ``\u202e`` for what must not be printed.

    That is: C0, DEL and C1, characters that change the direction of writing, other format characters, line separators,
    unassigned characters, and lone surrogates, which stand for bytes that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def unaltered(text: str) -> str:
    """Return `text` with an escape for what a terminal would obey alone: C0, DEL and C1, and changes of direction.

    Tabs, form feeds, both characters of line ends, and blanks of all kinds stay as they are.
    """
    import re  # noqa: PLC0415  seldom needed

    obeyed = "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
    return re.sub(obeyed, lambda found: _escaped(found[0]), text)


def visible_lines(text: str) -> str:
    """Do as `visible` does, but keep line ends and tabs."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


class Watched:
    """Turns bytes that come in pieces, such as a console's, into text for a terminal: `visible_lines` without colours.

    A character or a sequence that is cut off at the end of a piece comes with the next one.
    """

    def __init__(self) -> None:
        import codecs  # noqa: PLC0415  seldom needed
        import re  # noqa: PLC0415

        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._colour: re.Pattern[str] = re.compile(r"\x1b\[[0-9;]{0,29}m")
        self._begun: re.Pattern[str] = re.compile(r"(?:\r|\x1b(?:\[[0-9;]{0,29})?)\Z")
        self._rest = ""

    def feed(self, data: bytes, *, last: bool = False) -> str:
        """Return the text of `data` and of what was kept before, as far as it is complete; with `last`, all of it."""
        text = self._rest + self._decoder.decode(data, last)
        begun = None if last else self._begun.search(text)
        end = len(text) if begun is None else begun.start()
        self._rest = text[end:]
        return visible_lines(self._colour.sub("", text[:end]).replace("\r\n", "\n"))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte, by surrogateescape
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
