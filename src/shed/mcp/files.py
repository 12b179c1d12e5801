"""Files of sheds, as an agent reads, writes and finds them; and copies between a shed and the user's one folder."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path, PurePosixPath

from shed.client.address import Address
from shed.client.copying import Place
from shed.client.exchange import Exchange, Exchanged, check_incoming
from shed.errors import DataError, ForbiddenError, NotFoundError, ShedError, UnavailableError, UsageError
from shed.mcp.shell import Shell
from shed.progress import BytesEvent, Event
from shed.sizes import format_size
from shed.untrusted import told

MOST_READ = 64 << 10
"""Bytes of a file that are read at one time."""
MOST_FILE = 2 << 20
"""Bytes of a file that can be written or edited."""
MOST_COPY = 1 << 30
"""Bytes that one copy may take."""
MOST_FOUND = 200
_LINE = 300
"""Characters of a line that was found."""
_SLACK = 4096
_ABSENT, _FOLDER, _ODD = 90, 91, 92
_CHECK = """\
[ -e "$1" ] || exit 90
[ -d "$1" ] && exit 91
[ -f "$1" ] || exit 92
"""
_READ = _CHECK + f'wc -l <"$1"; sed -n "$2,$3p" "$1" | head -c {MOST_READ + 1}'
_WHOLE = _CHECK + 'cat -- "$1"'
_WRITE = """\
[ -d "$1" ] && exit 91
f=$(readlink -f -- "$1" 2>/dev/null) || f=
[ -n "$f" ] || f=$1
mkdir -p -- "$(dirname -- "$f")" && t=$(mktemp -p "$(dirname -- "$f")" .shed.XXXXXX) || exit 1
trap 'rm -f -- "$t"' EXIT
if [ -e "$f" ]; then cp -p -- "$f" "$t"; else chmod "$(printf '%o' $((0666 & ~$(umask))))" "$t"; fi
cat >"$t" && mv -f -- "$t" "$f"
"""
"""Writes beside the file first, so that nobody sees half of it; its mode and its links stay."""
_FIND = """\
[ -e "$1" ] || exit 90
p=$1 g=$2 t=$3 n=$4 c=$5
set -- "$p" '(' -name .git -o -name node_modules -o -name __pycache__ -o -name .venv ')' -prune -o -type f -name "$g"
if [ -n "$t" ]; then set -- "$@" -exec grep -HnE -e "$t" -- '{}' +; else set -- "$@" -print; fi
find "$@" | head -n "$n" | cut -c "1-$c"
"""


class Files:
    """The files of sheds on the server at `address`."""

    def __init__(self, address: Address, run: Shell, folder: Path | None = None) -> None:
        self._exchange = Exchange(folder) if folder else None
        self._address = address
        self._shell = run

    async def read(self, shed: str, path: str, first: int, lines: int) -> str:
        """Return some lines of a text file, and a line about what is left out."""
        code, output = await self._shell.run(
            shed, _READ, _named(path), str(first), str(first + lines - 1), most=MOST_READ + _SLACK
        )
        _explain(code, path, output)
        total, _, content = output.partition(b"\n")
        if b"\0" in content:
            raise DataError(f"{told(path)} is not text", hint="look at it with exec: file, xxd")
        if len(content) > MOST_READ:
            content = content[: content.rfind(b"\n", 0, MOST_READ) + 1 or MOST_READ]
        text = content.decode(errors="replace")
        shown = text.count("\n") + (not text.endswith("\n") and text != "")
        rest = int(total) - (first + shown - 1) if total.strip().isdigit() else 0
        return text + (f"\n[{rest} more lines: first_line={first + shown}]" if rest > 0 else "")

    async def write(self, shed: str, path: str, content: str) -> int:
        """Write a file, and the folders that lead to it; return its size in bytes."""
        data = _encoded(content)
        code, output = await self._shell.run(shed, _WRITE, _named(path), stdin=data, most=_SLACK)
        _explain(code, path, output)
        return len(data)

    async def edit(self, shed: str, path: str, old: str, new: str, *, everywhere: bool) -> int:
        """Replace a text in a file, which must be there once, or `everywhere`; return how often it was there."""
        code, output = await self._shell.run(shed, _WHOLE, _named(path), most=MOST_FILE)
        _explain(code, path, output)
        try:
            text = output.decode()
        except UnicodeDecodeError:
            raise DataError(f"{told(path)} is not UTF-8", hint="change it with exec: sed, perl") from None
        count = text.count(old)
        if not count and "\r\n" in text:  # a model is shown, and sends, plain line ends
            old, new = (part.replace("\r\n", "\n").replace("\n", "\r\n") for part in (old, new))
            count = text.count(old)
        if not count:
            raise NotFoundError(f"that text is not in {told(path)}", hint="read the file: each blank and tab counts")
        if count > 1 and not everywhere:
            raise UsageError(f"that text is {count} times in {told(path)}", hint="give lines around it, too, or all")
        if len(text) + count * (len(new) - len(old)) > MOST_FILE:
            raise DataError(f"that would be more than {MOST_FILE} bytes", hint="change it with exec: sed, perl")
        await self.write(shed, path, text.replace(old, new))
        return count

    async def find(self, shed: str, path: str, name: str, text: str) -> str:
        """Return the paths of files below `path` whose name fits, or with `text` the lines that fit; one a line."""
        code, output = await self._shell.run(
            shed, _FIND, _named(path), name, text, str(MOST_FOUND + 1), str(_LINE), most=(MOST_FOUND + 1) * 4 * _LINE
        )
        _explain(code, path, output)
        lines = output.decode(errors="replace").splitlines()
        if len(lines) > MOST_FOUND:
            lines[MOST_FOUND:] = [f"[the first {MOST_FOUND}; say more in path, name or text]"]
        return "\n".join(lines) or "nothing was found"

    async def upload(self, shed: str, local: str, path: str) -> None:
        """Copy a file or folder of this machine into a shed."""
        await self._copied(Place("", local), Place(shed, await self._whole(shed, path)))

    async def download(self, shed: str, path: str, name: str) -> None:
        """Copy a file or folder of a shed to `name` among what came from sheds, where nothing is yet."""
        check_incoming(name)
        await self._copied(Place(shed, await self._whole(shed, path)), Place("", name))

    async def _whole(self, shed: str, path: str) -> str:
        """Return the absolute path that `path` means from the working folder."""
        _, output = await self._shell.run(shed, "pwd", most=_SLACK)
        return str(PurePosixPath(output.decode(errors="replace").rstrip("\n") or "/", path))

    async def _copied(self, source: Place, target: Place) -> None:
        """Copy in a thread, which gives up when this is cancelled, or when too much comes."""
        if self._exchange is None:
            raise ForbiddenError("this session may not use files of the user's machine", hint="use write and read")
        over = threading.Event()

        def watch(event: Event) -> None:
            if over.is_set():
                raise UnavailableError("the copy was given up")
            if isinstance(event, BytesEvent) and event.current > MOST_COPY:
                raise DataError(f"that is more than {format_size(MOST_COPY)}", hint="copy less of it")

        copy = Exchanged(self._exchange, self._address, source, target, on_event=watch)
        try:
            await asyncio.to_thread(copy.run)
        finally:
            over.set()
            copy.give_up()


def _named(path: str) -> str:
    """Return a path that no program takes for an option."""
    return f"./{path}" if path.startswith("-") else path


def _encoded(content: str) -> bytes:
    try:
        data = content.encode()
    except UnicodeEncodeError:
        raise UsageError("the content is no text", hint="send proper Unicode") from None
    if len(data) > MOST_FILE:
        raise DataError(f"{len(data)} bytes are more than {MOST_FILE}", hint="write it in parts, by exec")
    return data


def _explain(code: int, path: str, output: bytes) -> None:
    """Raise the error that the exit code of a script stands for."""
    shown = told(path)
    if code == _ABSENT:
        raise NotFoundError(f"there is no {shown}", hint="see what there is: find")
    if code == _FOLDER:
        raise UsageError(f"{shown} is a folder", hint="see what is in it: find")
    if code == _ODD:
        raise UsageError(f"{shown} is no ordinary file", hint="use exec")
    if code:
        said = output.decode(errors="replace").strip()
        raise ShedError(f"{shown}: {told(said) or f'exit code {code}'}", code="COMMAND_FAILED")
