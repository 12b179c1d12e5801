"""From words to what is meant: global options, commands, the words of exec, sizes and times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shed.cli import exec as exec_words
from shed.cli import values
from shed.cli.app import SHED, run
from shed.cli.arguments import GLOBAL, HELP, argument, flag, option
from shed.cli.command import Command, Group
from shed.cli.connection import refuse_server
from shed.cli.help import of_command
from shed.cli.image_build import build
from shed.cli.options import Options, take_all
from shed.errors import UsageError
from shed.images.builders.build import DEFAULT_FILES
from shed.sizes import parse_memory


def _nothing(args: object, options: Options) -> int:
    """Do nothing."""
    return 0


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "-vv", "-s", "X", "--config=F", "list", "--rest"],
        ["-v", "--verbose", "-sX", "-cF", "--json", "list", "--rest"],
        ["-v", "-v", "--server", "X", "--config", "F", "--json", "list", "--rest"],
        ["--server=X", "-vv", "-c", "F", "--json", "list", "--rest"],
    ],
)
def test_global_options_before_the_command(words: list[str]) -> None:
    """Every way of writing them means the same."""
    options = Options()
    assert take_all(words, options) == ["list", "--rest"]
    assert (options.json, options.verbose, options.server, options.config) == (True, 2, "X", "F")


def test_global_options_after_the_command_add_up() -> None:
    """Both places count, and the later one wins where there can be only one."""
    options = Options()
    rest = take_all(["-v", "-s", "X", "list"], options)
    Command("list", [], [], _nothing).parse([*rest[1:], "-v", "--server", "Y", "--json"], options)
    assert (options.json, options.verbose, options.server) == (True, 2, "Y")


@pytest.mark.parametrize(
    ("words", "json"),
    [
        (["create", "x", "--cpus", "0", "--json"], True),
        (["frob", "--json"], True),
        (["image", "frob", "--json"], True),
        (["create", "x", "--cpus", "0"], False),
        (["create", "--", "x", "--json"], False),
    ],
)
def test_what_is_wrong_with_the_words_is_told_as_they_ask(words: list[str], *, json: bool) -> None:
    """A program that says --json gets its errors as JSON, wherever it says it."""
    options = Options()
    with pytest.raises(UsageError):
        run(words, options)
    assert options.json == json


@pytest.mark.parametrize("words", [["-s"], ["--config"]])
def test_an_option_without_its_value(words: list[str]) -> None:
    """It is named."""
    with pytest.raises(UsageError, match=words[0]):
        take_all(words, Options())


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("lst", "shed list"),
        ("craete", "shed create"),
        ("exce", "shed exec"),
        ("sever", "shed server"),
        ("ps", "shed ls"),
        ("snapshot delete", "shed snapshot rm"),
        ("snapshot inspect", "shed snapshot info"),
        ("doctor", "shed-server doctor"),
    ],
)
def test_a_wrong_command_gets_a_suggestion(wrong: str, right: str) -> None:
    """A typing error costs one look, and so does what a command is called elsewhere."""
    with pytest.raises(UsageError, match=f"unknown command '{wrong}'") as caught:
        run(wrong.split(), Options())
    assert caught.value.hint == f"did you mean: {right}"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["image", "build", "-n", "dev", "."], "image build"),
        (["image", "build", "-n", "dev", "--from-oci-archive", "x.tar"], "image build"),
        (["image", "save", "dev", "-o", "-"], "image save"),
        (["image", "load", "-i", "x.tar"], "image load"),
        (["image", "bootkit", "build"], "image bootkit build"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_server_is_not_ignored(words: list[str], command: str, *, first: bool) -> None:
    """What works on this machine alone says so, instead of doing it in another place than the user named."""
    named = ["-s", "http://far:1"]
    options = Options()
    with pytest.raises(
        UsageError, match=f"^{command} works on the image store of this machine.*http://far:1"
    ) as caught:
        run(take_all(named + words if first else words + named, options), options)
    assert "-s local" in (caught.value.hint or "")


@pytest.mark.parametrize("how", ["environment", "default"])
def test_a_server_that_is_meant_without_an_option_counts_too(
    how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SHED_SERVER and the default of the configuration, unless -s says that this machine is meant."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHED_RUNTIME_DIR", str(tmp_path))
    if how == "environment":
        monkeypatch.setenv("SHED_SERVER", "http://far:1")
    else:
        (tmp_path / ".shed").mkdir()
        (tmp_path / ".shed/config.yaml").write_text("servers: {lab: {host: far, http_port: 1}}\ndefault_server: lab\n")
    options = Options()
    with pytest.raises(UsageError, match=r"cannot use the server http://far:1"):
        refuse_server(options, "image save")
    for named in ("local", f"unix://{tmp_path}/shed.sock"):
        options.server = named
        refuse_server(options, "image save")


def test_a_build_may_be_local_whatever_the_server() -> None:
    """Then the next mistake is told."""
    with pytest.raises(UsageError, match="cannot be combined"):
        run(["image", "build", "-n", "dev", "--local", "-s", "http://far:1", "--from", "x", "."], Options())


def test_a_wrong_word_behind_a_noun_gets_a_suggestion() -> None:
    """The suggestion holds the noun."""
    with pytest.raises(UsageError) as caught:
        run(["server", "stauts"], Options())
    assert caught.value.hint == "did you mean: shed server status"


def test_options_are_not_abbreviated() -> None:
    """--mem must not start to mean something else when an option is added."""
    create = Command("create", [option("--memory", "SIZE", "")], [], _nothing)
    with pytest.raises(UsageError, match="unknown option --mem") as caught:
        create.parse(["--mem", "1"], Options())
    assert caught.value.hint == "did you mean --memory?"


COPY = Command(
    "copy",
    [
        argument("FILE", "", key="files", count="+"),
        argument("TARGET", ""),
        argument("MODE", "", count="?", default="rw"),
        flag("-f, --force", ""),
        flag("-a, --all", ""),
        option("-n, --number", "N", "", convert=values.number, default=7),
        option("-e, --env", "KEY=VALUE", "", repeat=True),
        option("--right", "RIGHT", "", choices=("read", "use")),
    ],
    [],
    lambda args, options: 0,
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "b"], {"files": ["a"], "target": "b", "mode": "rw", "force": False, "number": 7, "env": []}),
        (["a", "b", "c", "d"], {"files": ["a", "b", "c"], "target": "d"}),
        (["-fa", "a", "-n3", "b"], {"force": True, "all": True, "number": 3}),
        (["a", "-fn", "3", "b"], {"force": True, "number": 3}),
        (["a", "-n=3", "--env", "A=1", "b", "-eB=2", "--env=C="], {"number": 3, "env": ["A=1", "B=2", "C="]}),
        (["a", "--", "-f", "--json"], {"files": ["a", "-f"], "target": "--json", "force": False}),
        (["-", "b", "--right=use"], {"files": ["-"], "right": "use"}),
        (["a", "b", "-e", "-"], {"env": ["-"]}),
    ],
)
def test_words_of_a_command(words: list[str], expected: dict[str, object]) -> None:
    """Options anywhere, short ones together, values in the same word or the next one; behind -- there are none."""
    found = COPY.parse(words, Options())
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "shed copy needs FILE"),
        (["a"], "shed copy needs TARGET"),
        (["a", "b", "-n"], "-n needs a value: N"),
        (["a", "b", "--number", "--force"], "--number needs a value: N"),
        (["a", "b", "-n", "x"], "--number: 'x' is not a whole number"),
        (["a", "b", "-n", "-1"], "--number: '-1' is not a whole number"),
        (["a", "b", "--force=yes"], "--force takes no value"),
        (["a", "b", "-fx"], "unknown option -fx"),
        (["a", "b", "--right", "admin"], "--right must be read or use, not 'admin'"),
    ],
)
def test_wrong_words_of_a_command(words: list[str], says: str) -> None:
    """One sentence that names the option as the user wrote it, and where to look."""
    with pytest.raises(UsageError) as caught:
        COPY.parse(words, Options())
    assert caught.value.message == says
    assert caught.value.hint == "see: shed copy --help"


def test_a_required_option_and_one_argument_too_many() -> None:
    """Both are told."""
    save = Command("save", [option("-o, --output", "FILE", "", required=True)], [], _nothing)
    with pytest.raises(UsageError, match=r"^shed save needs --output FILE\n"):
        save.parse([], Options())
    with pytest.raises(UsageError, match=r"^unexpected argument 'x'\n"):
        save.parse(["x", "-o", "f"], Options())


def test_help_comes_before_what_is_missing() -> None:
    """The words behind --help need not be right."""
    assert COPY.parse(["--help", "--frob"], Options()) is None
    assert COPY.parse(["-fh"], Options()) is None


def leaves(group: Group) -> Iterator[Command]:
    """Yield all commands below a group, those that read their words themselves aside."""
    for entry in group.commands.values():
        found = entry.load()
        if isinstance(found, Group):
            yield from leaves(found)
            if found.default is not None:
                yield found.default
        elif isinstance(found, Command):
            yield found


@pytest.mark.parametrize("name", SHED.commands)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help works for each, on standard output, and names the command."""
    assert run([name, "--help"], Options()) == 0
    assert f"usage: shed {SHED.commands[name].alias_of or name}" in capsys.readouterr().out


@pytest.mark.parametrize("command", list(leaves(SHED)), ids=lambda command: command.name)
def test_every_argument_is_explained(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the help, in lines that fit; no two arguments of a command have the same name, but docker's -v of `run`."""
    monkeypatch.setenv("COLUMNS", "80")
    text = of_command(command)
    assert command.about[0]
    assert "``" not in text
    for one in command.arguments:
        assert one.help, f"{command.name}: {one}"
    names = [name for one in (*command.arguments, *GLOBAL, HELP) for name in one.names]
    assert sorted(names) == sorted([*set(names), *(["-v"] if command.name == "run" else [])])
    assert not [line for line in text.partition("examples:")[0].splitlines() if len(line) > 80]


def test_help_says_which_files_are_looked_for() -> None:
    """The names stand in the help as text, so that it need not import the builders."""
    assert "Dockerfile.shed, Dockerfile or Containerfile" in str([one.help for one in build.arguments])
    assert DEFAULT_FILES == ("Dockerfile.shed", "Dockerfile", "Containerfile")


@pytest.mark.parametrize(
    ("words", "name", "command"),
    [
        (["dev", "--", "ls", "-l"], "dev", ["ls", "-l"]),
        (["dev", "ls", "-l", "--json"], "dev", ["ls", "-l", "--json"]),
        (["dev", "ls", "--", "x"], "dev", ["ls", "--", "x"]),
        (["dev", "--", "--", "x"], "dev", ["--", "x"]),
        (["--", "dev", "-x"], "dev", ["-x"]),
        (["dev", "--", "-weird"], "dev", ["-weird"]),
        (["dev", "--", ""], "dev", [""]),
        (["dev", "-"], "dev", ["-"]),
        (["dev"], "dev", []),
        (["dev", "--"], "dev", []),
        ([], "", []),
    ],
)
def test_exec_words_belong_to_the_command(words: list[str], name: str, command: list[str]) -> None:
    """From the command on nothing is ours, whatever it looks like."""
    options = Options()
    request = exec_words.parse(words, options)
    assert (request.name, request.command, options.json) == (name, command, False)


@pytest.mark.parametrize(
    "words",
    [
        ["-t", "-e", "A=1", "-e", "B==", "-w", "/x", "-u", "me", "-vv", "dev", "env"],
        ["dev", "--tty", "--env=A=1", "--env", "B==", "--workdir=/x", "--user", "me", "--verbose", "-v", "--", "env"],
        ["-it", "-eA=1", "-eB==", "-w/x", "dev", "-ume", "-vv", "env"],
    ],
)
def test_exec_options(words: list[str]) -> None:
    """Before or behind the name, short or long."""
    options = Options()
    request = exec_words.parse(words, options)
    assert (request.name, request.command, request.tty, request.env) == ("dev", ["env"], True, ["A=1", "B=="])
    assert (request.workdir, request.user, options.verbose) == ("/x", "me", 2)


@pytest.mark.parametrize(
    "words", [["-x", "dev"], ["--nope", "dev"], ["-e"], ["-e", "a b", "dev"], ["-e", "=x", "dev"], ["-ix", "dev"]]
)
def test_wrong_exec_options(words: list[str]) -> None:
    """They are refused, not passed on."""
    with pytest.raises(UsageError):
        exec_words.parse(words, Options())


def test_a_folder_is_shared_once() -> None:
    """A second --local-dir would silently win."""
    words = ["create", "dev", "--local-dir", "/a", "--local-dir", "/b"]
    with pytest.raises(UsageError, match="only once"):
        SHED(words, Options())


def test_exec_takes_variables_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-e KEY` and a line KEY of a file are what they are in our own environment, and nothing when they are not set."""
    monkeypatch.setenv("HERE", "a=b c")
    monkeypatch.delenv("NOWHERE", raising=False)
    file = tmp_path / "env"
    file.write_text("# a comment\n\nA='quoted $HERE'\r\n  HERE\nNOWHERE\nEMPTY=\n")
    words = ["-e", "HERE", "-e", "NOWHERE", "--env-file", str(file), "-e", "A=last", "dev", "env"]
    assert exec_words.parse(words, Options()).env == [
        "HERE=a=b c",
        "A='quoted $HERE'",
        "HERE=a=b c",
        "EMPTY=",
        "A=last",
    ]


@pytest.mark.parametrize(("text", "says"), [(b"=x\n", "line 1"), (b"\xff=1", "UTF-8"), (None, "No such file")])
def test_a_bad_file_of_variables(tmp_path: Path, text: bytes | None, says: str) -> None:
    """It is refused with its name and what is wrong with it."""
    file = tmp_path / "env"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(UsageError, match=says) as caught:
        exec_words.parse(["--env-file", str(file), "dev", "env"], Options())
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name of a shed"),
        (["dev"], "needs a command"),
        (["dev", "--", ""], "first word is empty"),
        (["", "--", "dev", "rm"], "shed is empty"),
    ],
)
def test_exec_of_nothing(words: list[str], says: str) -> None:
    """Refused before any server is asked."""
    with pytest.raises(UsageError, match=says) as caught:
        exec_words.exec_command(words, Options())
    assert caught.value.hint


def test_the_last_of_tty_and_no_tty_wins() -> None:
    """So that an alias with -t can be overruled."""
    assert exec_words.parse(["-t", "-T", "dev", "x"], Options()).tty is False
    assert exec_words.parse(["dev", "x"], Options()).tty is None
    assert exec_words.parse(["-n", "dev", "x"], Options()).stdin is False


@pytest.mark.parametrize(
    ("text", "value"), [("2048", 2048), ("512M", 512), ("4G", 4096), ("1.5GiB", 1536), ("1024K", 1)]
)
def test_memory(text: str, value: int) -> None:
    """A bare number is megabytes, as in the API."""
    assert parse_memory(text) == value


@pytest.mark.parametrize("text", ["", "G", "-1", "1K", "٣", "5Q", "9" * 400 + "G", "9" * 5000])
def test_wrong_memory(text: str) -> None:
    """No guessing."""
    with pytest.raises(UsageError):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172800), ("250ms", 0.25)]
)
def test_duration(text: str, value: float) -> None:
    """A bare number is seconds."""
    assert values.duration(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1s", "1w", "m", "1 m"])
def test_wrong_duration(text: str) -> None:
    """No guessing."""
    with pytest.raises(UsageError):
        values.duration(text)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_wrong_count(text: str) -> None:
    """Half a processor does not exist."""
    with pytest.raises(UsageError):
        values.count(text)
