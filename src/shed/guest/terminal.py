"""A terminal's modes, as an SSH client sends them: pairs of an opcode of RFC 4254, section 8, and a value."""

from __future__ import annotations

import termios

_CHARACTERS = {
    1: termios.VINTR, 2: termios.VQUIT, 3: termios.VERASE, 4: termios.VKILL, 5: termios.VEOF, 6: termios.VEOL,
    7: termios.VEOL2, 8: termios.VSTART, 9: termios.VSTOP, 10: termios.VSUSP, 12: termios.VREPRINT,
    13: termios.VWERASE, 14: termios.VLNEXT, 18: termios.VDISCARD,
}  # fmt: skip
_INPUT = {
    30: termios.IGNPAR, 31: termios.PARMRK, 32: termios.INPCK, 33: termios.ISTRIP, 34: termios.INLCR, 35: termios.IGNCR,
    36: termios.ICRNL, 37: 0o1000, 38: termios.IXON, 39: termios.IXANY, 40: termios.IXOFF, 41: termios.IMAXBEL,
    42: 0o40000,
}  # fmt: skip
"""37 and 42 are IUCLC and IUTF8, which the module has no names for in all versions; asm-generic/termbits.h."""
_LOCAL = {
    50: termios.ISIG, 51: termios.ICANON, 53: termios.ECHO, 54: termios.ECHOE, 55: termios.ECHOK, 56: termios.ECHONL,
    57: termios.NOFLSH, 58: termios.TOSTOP, 59: termios.IEXTEN, 60: termios.ECHOCTL, 61: termios.ECHOKE,
    62: termios.PENDIN,
}  # fmt: skip
_OUTPUT = {
    70: termios.OPOST, 72: termios.ONLCR, 73: termios.OCRNL, 74: termios.ONOCR, 75: termios.ONLRET,
}  # fmt: skip
_NO_CHARACTER = 255


def set_modes(fd: int, modes: list[tuple[int, int]]) -> None:
    """Set the modes of the terminal `fd`.

    What is not known is skipped, and so is what only makes sense on a line: parity, speed.
    """
    attributes = termios.tcgetattr(fd)
    characters = attributes[6]
    for opcode, value in modes:
        for place, flags in ((0, _INPUT), (1, _OUTPUT), (3, _LOCAL)):
            if opcode in flags:
                attributes[place] = attributes[place] | flags[opcode] if value else attributes[place] & ~flags[opcode]
        if opcode in _CHARACTERS and 0 <= value <= _NO_CHARACTER:
            characters[_CHARACTERS[opcode]] = bytes([0 if value == _NO_CHARACTER else value])
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
