"""A shed that lies to who keeps a folder alike with one of its own: nothing is written elsewhere, and it ends soon."""

from __future__ import annotations

from pathlib import Path

import pytest

from shed.client.copying import CopyError
from shed.client.twoway.remote import Remote
from shed.errors import ShedError
from support.guests.replica_program import Program, Sides, content, lying

FILE = "f 644 1 1 1 1"


def listing(*records: tuple[str, str, str]) -> str:
    """Return a patch by which the shed tells these entries, paths and goals of links."""
    payload = b"".join(b"%s\0%s\0%s\0" % tuple(each.encode() for each in record) for record in records)
    return _told(payload)


def _told(payload: bytes) -> str:
    return f"""
def look(self, words):
    serve._write(wire.frame(wire.ENTRIES, {payload!r}) + wire.frame(wire.END))
serve.Server._look = look
"""


@pytest.mark.parametrize(
    "patch",
    [
        listing((FILE, "../x", "")),
        listing((FILE, "/etc/x", "")),
        listing((FILE, "a/../../x", "")),
        listing((FILE, "", "")),
        listing((FILE, ".", "")),
        listing((FILE, "a//b", "")),
        listing((FILE, "nowhere/x", "")),
        listing((FILE, "a", ""), (FILE, "a/x", "")),
        listing((FILE, "x" * 256, "")),
        listing((FILE, "/".join("x" * 200), "")),
        listing(("f 644 -1 1 1 1", "x", "")),
        listing(("q 644 1 1 1 1", "x", "")),
        listing(("f 999 1 1 1 1", "x", "")),
        listing((f"f 644 {'9' * 30} 1 1 1", "x", "")),
        listing(("f 644 1 1 1", "x", "")),
        listing(("l 777 1 1 1 1", "x", "y" * 4096)),
        _told(b""),
        _told(b"f 644 1 1 1 1\0x"),
        "serve.Server._look = lambda self, words: serve._write(b'E' + b'\\xff' * 100)",
        "serve.Server._look = lambda self, words: serve._write(wire.frame(wire.RESULT, b'+'))",
        "serve.Server._look = lambda self, words: serve._write(wire.frame(wire.NEWS, b'0'))",
        "serve.Server._hello = lambda self, words: serve._write(wire.frame(wire.END))",
        "serve.Server._hello = lambda self, words: sys.exit('it is broken')",
    ],
)
def test_what_it_has_there(tmp_path: Path, patch: str) -> None:
    """Nonsense is one error, and nothing is done."""
    sides = Sides(tmp_path)
    (sides.here / "ours").write_text("x")
    with pytest.raises(ShedError, match=r"the shed|the program has ended"):
        sides.sync(channel=lambda home: lying(home, patch))
    assert content(sides.here) == {"ours": (b"x", False)}
    assert {path.name for path in tmp_path.iterdir()} <= {"here", "home", "states"}


def test_an_endless_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends at the limit."""
    monkeypatch.setattr("shed.client.twoway.remote.MOST_ENTRIES", 2000)
    patch = """
def look(self, words):
    number = 0
    while True:
        number += 1
        serve._write(wire.frame(wire.ENTRIES, b"f 644 1 1 1 1\\0%d\\0\\0" % number))
serve.Server._look = look
"""
    with pytest.raises(CopyError, match="more than 2,000 files"):
        Sides(tmp_path).sync(channel=lambda home: lying(home, patch))


def test_a_listing_of_long_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are bounded, too."""
    monkeypatch.setattr("shed.client.twoway.remote.MOST_LISTED", 1 << 20)
    patch = """
def look(self, words):
    for number in range(5000):
        serve._write(wire.frame(wire.ENTRIES, b"l 777 1 1 1 1\\0%d\\0%s\\0" % (number, b"x" * 4000)))
    serve._write(wire.frame(wire.END))
serve.Server._look = look
"""
    with pytest.raises(CopyError, match="lists more than"):
        Sides(tmp_path).sync(channel=lambda home: lying(home, patch))


def test_news_of_many(tmp_path: Path) -> None:
    """More at once than any program tells is refused."""
    sides = Sides(tmp_path)
    patch = (
        "serve.Server._await = lambda self, words: serve._write(wire.frame(wire.NEWS, b'1' + b'a\\0' * 9000 + b'a'))"
    )
    channel = lying(sides.home, patch)
    pair = sides.pair()
    with pair.begin(remote := Remote(channel)), pytest.raises(CopyError, match="does not say"):
        remote.ask_news()
        pair.refresh(remote)
    channel.close()


@pytest.mark.parametrize(
    "patch",
    [
        "serve._write(wire.frame(wire.DATA, b'xx')); self._done(path, reading.entry)",
        "serve._write(wire.frame(wire.DATA, b'x' * 1000)); self._done(path, reading.entry)",
        "self._done(path, reading.entry)",
        "reading.entry.inode += 1; serve._write(wire.frame(wire.DATA, b'x')); self._done(path, reading.entry)",
        "serve._write(wire.frame(wire.DATA) + wire.frame(wire.DATA, b'x')); self._done(path, reading.entry)",
        "self._answer(b'?')",
        "self._answer(b'+1f 644')",
        "sys.exit(1)",
    ],
)
def test_a_file_that_is_another_than_it_said(tmp_path: Path, patch: str) -> None:
    """Too much, too little, or of another: nothing of it is seen."""
    sides = Sides(tmp_path)
    (sides.there / "theirs").write_text("x")
    get = f"""
def get(self, words):
    path = words[1].decode()
    reading = self._folder.read(path)
    {patch}
serve.Server._get = get
"""
    with pytest.raises(ShedError, match=r"the shed|the program has ended"):
        sides.sync(channel=lambda home: lying(home, get))
    assert [name for name in content(sides.here) if not name.startswith(".shed-sync-")] == []
    sides.sync()
    assert sorted(content(sides.here)) == ["theirs"]


def test_a_link_that_is_put_in_the_way(tmp_path: Path) -> None:
    """A folder of this machine that has become a link once its names were read is not gone through."""
    sides = Sides(tmp_path)
    (tmp_path / "outside").mkdir()
    (sides.here / "d").mkdir()
    (sides.here / "d/gone").write_text("x")
    sides.sync()
    (sides.there / "d/new").write_text("evil")
    (sides.there / "d/gone").unlink()
    pair, channel = sides.pair(), Program(sides.home)
    with pair.begin(remote := Remote(channel)):
        pair.refresh(remote)
        (sides.here / "d").rename(tmp_path / "moved")
        (sides.here / "d").symlink_to(tmp_path / "outside")
        (tmp_path / "outside/gone").write_text("mine")
        _, outcome = pair.cycle(remote)
    channel.close()
    assert outcome.again == {"d/new", "d/gone"}
    assert content(tmp_path / "outside") == {"gone": (b"mine", False)}


def test_what_is_there_now_is_not_written_over(tmp_path: Path) -> None:
    """What changed here or there since it was looked at stays, and is looked at again."""
    sides = Sides(tmp_path)
    for name in ("a", "b", "c", "d"):
        (sides.here / name).write_text("old")
    sides.sync()
    for side, names in ((sides.there, "ab"), (sides.here, "cd")):
        (side / names[0]).write_text("new")
        (side / names[1]).unlink()
    pair, channel = sides.pair(), Program(sides.home)
    with pair.begin(remote := Remote(channel)):
        pair.refresh(remote)
        for side, names in ((sides.here, "ab"), (sides.there, "cd")):
            for name in names:
                (side / name).write_text("later")
        _, outcome = pair.cycle(remote)
        assert outcome.again == {"a", "b", "c", "d"}
        assert [(sides.here / name).read_text() for name in "ab"] == ["later", "later"]
        assert [(sides.there / name).read_text() for name in "cd"] == ["later", "later"]
    channel.close()
    sides.sync()
    assert content(sides.here) == content(sides.there)
    assert (sides.here / "a.conflict-dev").read_text() == "new"
    assert (sides.here / "c.conflict-dev").read_text() == "later"


def test_it_leaves_some_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shed cannot fill the disk of this machine, and too large a file does not come at all."""
    sides = Sides(tmp_path)
    with (sides.there / "huge").open("wb") as file:
        file.truncate(3 << 30)
    (sides.there / "small").write_text("x")
    assert list(sides.sync()[1].left) == ["huge"]
    monkeypatch.setattr("shed.client.twoway.carrying._FREE", 1 << 60)
    (sides.there / "more").write_text("x")
    with pytest.raises(ShedError, match="No space left"):
        sides.sync()
    assert sorted(content(sides.here)) == ["small"]


def test_a_program_that_claims_to_have_what_is_ours(tmp_path: Path) -> None:
    """A digest that is none of its file changes nothing here."""
    sides = Sides(tmp_path)
    for side in (sides.here, sides.there):
        (side / "both").write_text(side.name[-4:])
    lie = """
import hashlib
digest = hashlib.sha256(b"here").digest()
def tell(self, path):
    self._done(path, self._folder.read(path).entry, digest=digest)
serve.Server._digest = tell
"""
    _, outcome = sides.sync(channel=lambda home: lying(home, lie))
    assert (outcome.aside, (sides.here / "both").read_text()) == ({}, "here")
