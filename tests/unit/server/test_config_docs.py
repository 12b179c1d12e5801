"""docs/reference/configuration.md holds every key, and its defaults and ranges are those of the program."""

import re
from pathlib import Path

import pytest

from shed.config.server import _TOP, ConfigError, Settings, _Section, _Setting, _Value, find_settings, parse_settings

PAGE = (Path(__file__).parents[3] / "docs/reference/configuration.md").read_text()
ROWS = {
    key: (default, values)
    for key, default, values in re.findall(r"^\| `([a-z_.]+)` \| (.+?) \| (.+?) \| .+ \|$", PAGE, re.MULTILINE)
}


def flat(table: dict[str, _Setting], prefix: str = "") -> dict[str, _Value]:
    """Return every key with the section that it is in."""
    keys: dict[str, _Value] = {}
    for key, setting in table.items():
        keys |= (
            flat(dict(setting.keys), f"{prefix}{key}.")
            if isinstance(setting, _Section)
            else {f"{prefix}{key}": setting}
        )
    return keys


def parsed(key: str, value: str) -> Settings:
    """Return the settings of a file with this one key."""
    section, _, name = key.rpartition(".")
    return parse_settings(f"{section}: {{{name}: {value}}}" if section else f"{name}: {value}", Path("server.yaml"))


def test_every_key_is_documented_and_none_is_invented() -> None:
    """In the table, and in the file shown whole."""
    assert ROWS.keys() == flat(_TOP).keys()
    (whole,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert set(re.findall(r"^ *([a-z_]+):", whole, re.MULTILINE)) >= {key.rpartition(".")[2] for key in ROWS}


@pytest.mark.parametrize("key", ROWS)
def test_the_documented_default_is_the_default(key: str) -> None:
    """Read as a file would be."""
    default = ROWS[key][0]
    if default.startswith("`"):
        assert parsed(key, default.strip("`")) == Settings()
    else:
        assert default == "none"
        assert not getattr(Settings(), flat(_TOP)[key].field)


@pytest.mark.parametrize("key", [key for key, (_, values) in ROWS.items() if " to " in values])
def test_the_documented_range_is_the_range(key: str) -> None:
    """Both ends are in, and what lies beyond is out."""
    least, most = ROWS[key][1].split(" to ")
    for value in (least, most):
        parsed(key, value)
    for value in (
        re.sub(r"\d+", lambda end: str(int(end[0]) - 1), least),
        re.sub(r"\d+", lambda end: str(int(end[0]) + 1), most),
    ):
        with pytest.raises(ConfigError):
            parsed(key, value)


@pytest.mark.parametrize("key", [key for key, (_, values) in ROWS.items() if values.startswith("`")])
def test_the_documented_choices_are_the_choices(key: str) -> None:
    """Each is taken, and the error lists the same."""
    choices = re.findall(r"`(\w+)`", ROWS[key][1])
    for value in choices:
        parsed(key, value)
    with pytest.raises(ConfigError, match=", ".join(choices)):
        parsed(key, "nothing-like-it")


def test_the_whole_file_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, on a release build; and the places are those where it is looked for."""
    (whole,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert parse_settings(whole.replace("${shed.version}", "v1.0.0"), Path("server.yaml")).default_cpus == 4
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    places = re.findall(r"^\d\. `([^`]+)`", PAGE, re.MULTILINE)
    for place in reversed(places[:2]):
        path = Path(place).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert find_settings() == path
    assert places[2] == "/etc/shed/server.yaml"
