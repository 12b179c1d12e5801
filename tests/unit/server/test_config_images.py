"""What a configuration says of images: names, references, policy; and keys that are gone."""

from pathlib import Path

import pytest

from shed.config.images import reference
from shed.config.server import ConfigError, Settings, parse_settings
from shed.version import release_tag

FILE = Path("server.yaml")
RELEASE = release_tag()


def test_aliases() -> None:
    """A name stands for its reference, anything else for itself."""
    settings = parse_settings("image_aliases: {mine: reg.example/a:1, other: 'localhost:5000/b@sha256:00'}", FILE)
    assert settings.reference("mine") == "reg.example/a:1"
    assert settings.reference("reg.example/c") == "reg.example/c"


def test_the_token_is_the_release_and_only_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is expanded, and what looks as if it should be is no reference."""
    assert reference("r/x:${shed.version}", version="0.5.2") == "r/x:v0.5.2"
    with pytest.raises(ValueError, match=r"0\.5\.3\.dev1 is a development build"):
        reference("r/x:${shed.version}", version="0.5.3.dev1")
    for other in ("${version}", "{version}", "${shed.version"):
        with pytest.raises(ValueError, match="is not the name or the reference"):
            reference(f"r/x:{other}", version="0.5.2")
    monkeypatch.setattr("shed.config.server.images.reference.__kwdefaults__", {"version": "1.0.0.dev1"})
    with pytest.raises(ConfigError, match=r"server\.yaml: image_aliases: a: .*development build"):
        parse_settings("image_aliases: {a: 'r/x:${shed.version}'}", FILE)
    with pytest.raises(ConfigError, match=r"server\.yaml: default_image: .*development build"):
        parse_settings("default_image: r/x:${shed.version}", FILE)


def test_no_alias_is_there_by_itself() -> None:
    """A plain name is an image of the store: no registry is asked for what nobody configured."""
    assert Settings().image_aliases == {}
    assert Settings().reference("base") == "base"
    assert parse_settings("image_aliases:", FILE).image_aliases == {}
    assert parse_settings("image_aliases: {a: r/b}", FILE).image_aliases == {"a": "r/b"}


@pytest.mark.parametrize(
    ("text", "policy"), [("pull_policy: always", "always"), ("pull_policy: ''", "missing"), ("pull_policy:", "missing")]
)
def test_pull_policy(text: str, policy: str) -> None:
    """Nothing is missing."""
    assert parse_settings(text, FILE).pull_policy == policy


def test_a_wrong_pull_policy_has_the_documented_text() -> None:
    """Word for word, behind the file."""
    with pytest.raises(ConfigError) as caught:
        parse_settings("pull_policy: x", FILE)
    assert caught.value.message == 'server.yaml: invalid pull_policy "x" (want one of: missing, always, never)'


@pytest.mark.parametrize(
    "text",
    [
        "image_aliases: [a]",
        "image_aliases: {../a: r/b}",
        "image_aliases: {a: 'r/b c'}",
        "image_aliases: {a: }",
        "image_aliases: {a: 1}",
        "default_image: ''",
        "default_image: 'a\\nb'",
        "default_image: -rf",
        "pull_concurrency: 0",
        "pull_concurrency: 33",
        "bind_address: 0.0.0.0",
        "bind_address: here",
    ],
)
def test_what_cannot_be(text: str) -> None:
    """It is said at once, and not when an image is wanted or a port is bound."""
    with pytest.raises(
        ConfigError, match=r"server\.yaml: (image_aliases|default_image|pull_concurrency|bind_address): "
    ):
        parse_settings(text, FILE)


@pytest.mark.parametrize("where", ["{}", "qemu: {{{}}}"])
@pytest.mark.parametrize(
    ("key", "instead"),
    [("base_rootfs", "default_image"), ("rootfs_path", "default_image"), ("images", "image_aliases")],
)
def test_a_key_that_is_gone_names_its_successor(where: str, key: str, instead: str) -> None:
    """And the upgrade guide."""
    with pytest.raises(ConfigError, match=f"{key} is not a setting any more") as caught:
        parse_settings(where.format(f"{key}: x"), FILE)
    assert caught.value.hint == f"write {instead} instead, see docs/upgrades/v0.5.1-to-v0.5.2.md"
