"""Which settings a guest may write: read as git reads them, and nothing that runs a program."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from shed.backends.gitconfig import MAX_BYTES, Setting, UnclearError, allowed, harmless, parse

OLD = b"""[core]
	repositoryformatversion = 0
	sshCommand = mine
[remote "origin"]
	url = https://example.org/a.git
	fetch = +refs/heads/*:refs/remotes/origin/*
"""


def said_by_git(text: bytes, path: Path) -> list[tuple[str, bytes | None]] | None:
    """Return the settings as git reads them; None when it refuses the file."""
    path.write_bytes(text)
    words = ["git", "config", "--file", str(path), "--no-includes", "--null", "--list"]
    done = subprocess.run(
        words, capture_output=True, check=False, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    )
    if done.returncode:
        return None
    found: list[tuple[str, bytes | None]] = []
    for entry in done.stdout.split(b"\0")[:-1]:
        key, sign, value = entry.partition(b"\n")
        found.append((key.decode(errors="surrogateescape"), value if sign else None))
    return found


def key_of(setting: Setting) -> str:
    middle = (
        ""
        if setting.name is None
        else f".{setting.name.decode(errors='surrogateescape')}".replace('\\"', '"').replace("\\\\", "\\")
    )
    return f"{setting.section}{middle}.{setting.key}"


def test_what_git_reads_is_what_was_looked_at(tmp_path: Path) -> None:
    """Random files of all that is special: when one is clear, git refuses it, or finds the same settings in it and no
    others.
    """
    rng = random.Random(29)
    pieces = [
        "[core]",
        "[a]",
        '[b "c"]',
        '[b "c\\"d"]',
        '[b "\\\\"]',
        "[a.b]",
        "\n",
        "\n",
        "\n",
        "\t",
        " ",
        "x",
        "fsmonitor",
        "=",
        " = ",
        "y",
    ]
    pieces += [
        "\\",
        '"',
        "#",
        ";",
        "# words",
        "\r",
        "\r\n",
        "\0",
        "\v",
        "\f",
        "\ufeff",
        "ü",
        "[",
        "]",
        "-",
        "0",
        "\\n",
        "\\\n",
        '"\n',
        "key = v",
    ]
    clear = 0
    for _ in range(1500):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 9))).encode()
        try:
            found = parse(text)
        except UnclearError:
            continue
        clear += 1
        theirs = said_by_git(text, tmp_path / "config")
        assert theirs is None or [key for key, _ in theirs] == [key_of(setting) for setting in found], text
    assert clear > 100


@pytest.mark.parametrize(
    "more",
    [
        b"[core]\n\tfsmonitor = x\n",
        b"[core]\n\tFSMonitor = x\n",
        b"[CORE]\n\thooksPath = x\n",
        b"[core] fsmonitor = x\n",
        b"[core]\n\tbare = false \\\n\tfsmonitor = x\n",
        b"[core]\n\tworktree = ../..\n",
        b"[core]\n\tpager = x\n",
        b"[core]\r\n\tfsmonitor = x\n",
        b"[include]\n\tpath = x\n",
        b'[includeIf "gitdir:/"]\n\tpath = x\n',
        b"[alias]\n\tst = !x\n",
        b'[filter "a"]\n\tclean = x\n',
        b'[diff "a"]\n\ttextconv = x\n',
        b'[credential "https://a"]\n\thelper = !x\n',
        b"[gpg]\n\tprogram = x\n",
        b'[remote "new"]\n\turl = ext::sh -c x\n',
        b'[remote "new"]\n\turl = "ext::sh -c x"\n',
        b'[remote "new"]\n\turl = --upload-pack=x\n',
        b'[remote "new"]\n\tuploadpack = x\n',
        b'[remote "new"]\n\tvcs = x\n',
        b'[branch "a"]\n\tremote = ext::x\n',
        b'[submodule "a"]\n\tupdate = !x\n',
        b'[submodule "a"]\n\turl = ext::x\n',
        b'[url "ext::x"]\n\tinsteadOf = https\n',
        b"[core.x]\n\tfsmonitor = x\n",
        b"\xef\xbb\xbf[core]\n\tbare = false\n",
        b"[pager]\n\tstatus = x\n",
        b"[sequence]\n\teditor = x\n",
        b"x" * MAX_BYTES,
    ],
)
def test_what_runs_programs_is_refused(more: bytes) -> None:
    """Each is refused behind the old settings, before them, and in a new repository."""
    for new, old in ((OLD + more, OLD), (more + OLD, OLD), (more, b"")):
        assert not allowed(new, old)


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        OLD + b'[branch "topic"]\n\tremote = origin\n\tmerge = refs/heads/topic\n',
        OLD + b'[remote "fork"]\n\turl = git@example.org:me/a.git\n\tfetch = +refs/heads/*:refs/remotes/fork/*\n',
        OLD + b"[user]\n\tname = Some One\n\temail = some@example.org\n",
        OLD.replace(b"repositoryformatversion = 0", b"repositoryformatversion = 1"),
        b"# words\n" + OLD + b"\n; more\n",
    ],
)
def test_what_git_writes_is_allowed(new: bytes) -> None:
    """Branches, new remotes, who commits; the user's own settings stay."""
    assert allowed(new, OLD)


def test_the_users_settings_stay() -> None:
    """They are not removed, changed, or told otherwise; what cannot be read for certain stays as it is."""
    for new in (
        b"",
        OLD.replace(b"mine", b"other"),
        OLD.replace(b"\tsshCommand = mine\n", b""),
        OLD.replace(b"example.org/a", b"example.com/a"),
    ):
        assert not allowed(new, OLD)
    unclear = OLD + b"[core] filemode = true\n"
    assert not allowed(unclear, unclear)


def test_only_what_is_known_is_harmless() -> None:
    """A harmless key under another name is another key."""
    assert harmless(Setting("core", None, "bare", b"true"))
    assert not harmless(Setting("core", b"x", "bare", b"true"))
    assert not harmless(Setting("branch", None, "remote", b"origin"))
    assert not harmless(Setting("color", b"x", "y", b"z"))
    assert harmless(Setting("color", None, "ui", b"auto"))


ROOTED = OLD + b'[branch "main"]\n\tremote = origin\n\tmerge = refs/heads/main\n'
FORK = ROOTED + b'[remote "fork"]\n\turl = https://example.com/fork.git\n'


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (ROOTED, FORK, True),
        (ROOTED, FORK + b'[branch "main"]\n\tpushremote = fork\n', False),
        (FORK, FORK + b'[branch "main"]\n\tpushremote = fork\n', False),
        (FORK, FORK.replace(b"\tremote = origin\n", b"\tremote = fork\n"), False),
        (FORK, FORK.replace(b'[branch "main"]\n\tremote = origin\n\tmerge = refs/heads/main\n', b""), True),
        (FORK, FORK + b'[branch "topic"]\n\tremote = fork\n', False),
        (FORK, FORK + b'[branch "topic"]\n\tremote = origin\n', True),
        (FORK, FORK + b'[branch "topic"]\n\tremote = .\n', True),
        (FORK, FORK.replace(b'"main"', b'"other"'), True),
        (FORK, FORK + b'[branch "topic"]\n\tremote = doc/store\n', False),
        (
            OLD.replace(b"origin", b"upstream"),
            OLD.replace(b"origin", b"upstream") + b'[remote "origin"]\n\turl = https://example.com/x\n',
            False,
        ),
        (
            OLD.replace(b"origin", b"upstream"),
            OLD.replace(b"origin", b"upstream") + b'[branch "a"]\n\tremote = upstream\n',
            True,
        ),
        (b"", b'[remote "origin"]\n\turl = /workspace/a.git\n', True),
        (
            b'[remote "origin"]\n\turl = x\n',
            b'[remote "origin"]\n\turl = x\n\tpushurl = https://example.com/x\n',
            False,
        ),
    ],
)
def test_a_push_goes_where_it_went(old: bytes, new: bytes, expected: bool) -> None:
    """Branches lead to the user's remotes; a new one of the guest's is none, also when it was there a while."""
    assert allowed(new, old) is expected


@pytest.mark.parametrize(
    "address",
    [
        "doc/store",
        "./doc",
        "../x.git",
        "/home/me/x",
        "/data/x.git",
        "file:///x",
        "~/x",
        "-x:y",
        "ext::x",
        "/workspace/../x::y",
    ],
)
def test_a_new_remote_is_no_folder_of_the_hosts(address: str) -> None:
    """What git is led to runs hooks there."""
    assert not allowed(OLD + b'[remote "new"]\n\turl = %s\n' % address.encode(), OLD)
    assert not allowed(b'[remote "new"]\n\turl = %s\n' % address.encode(), b"")


@pytest.mark.parametrize(
    ("fetch", "expected"),
    [
        ("+refs/heads/*:refs/remotes/new/*", True),
        ("+refs/heads/main:refs/remotes/new/main", True),
        ("+refs/tags/v1:refs/tags/v1", True),
        ("+refs/heads/*:refs/remotes/new/objects/*", False),
        ("+refs/heads/*:refs/remotes/new/a/hooks/*", False),
        ("+refs/heads/*:refs/remotes/origin/*", False),
        ("+refs/heads/*:refs/heads/*", False),
        ("+refs/*:refs/*", False),
    ],
)
def test_what_is_fetched_goes_to_its_remotes_branches(fetch: str, expected: bool) -> None:
    """Not to where the host's git would make a git directory of it."""
    assert (
        allowed(OLD + b'[remote "new"]\n\turl = https://example.com/x\n\tfetch = %s\n' % fetch.encode(), OLD)
        is expected
    )
