"""Recipes of images: what is read, what is refused, what mmdebstrap is told."""

from pathlib import Path

import pytest

from shed.errors import UsageError
from shed.images.bootkit.archive import Archive
from shed.images.recipe import mmdebstrap_command, read_recipe

BASE = Path(__file__).resolve().parents[3] / "images/base"


def test_the_base_recipe_has_what_sheds_promise() -> None:
    """Tools, the user and the folder to work in."""
    recipe = read_recipe(BASE)
    assert {"bash", "git", "tmux", "sudo", "openssh-client", "curl", "python3", "ca-certificates"} <= set(recipe.packages)
    assert (recipe.config["User"], recipe.config["WorkingDir"]) == ("shed", "/workspace")


def test_packages_are_signed_and_security_fixes_are_in() -> None:
    """Each source names Debian's keyring; the suite's own, its updates, and its security archive."""
    recipe = read_recipe(BASE)
    command = [str(word) for word in mmdebstrap_command(recipe, Archive(), Path("out.tar"))]
    sources = [word for word in command if word.startswith("deb ")]
    assert [source.split()[3] for source in sources] == ["trixie", "trixie-updates", "trixie-security"]
    assert all("[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" in source for source in sources)
    assert f"--customize-hook={BASE / 'customize'}" in command


@pytest.mark.parametrize(
    "text", ["", "suite: x", "suite: 1\npackages: []\nconfig: {}", "suite: x\npackages: []\nconfig: {}\nextra: 1", "a: [", "- x"]
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str) -> None:
    """Missing, unknown or wrong keys, and what is not YAML."""
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        read_recipe(tmp_path)


def test_a_folder_without_a_recipe_is_named(tmp_path: Path) -> None:
    """The hint names one that works."""
    with pytest.raises(UsageError, match="does not exist") as caught:
        read_recipe(tmp_path)
    assert "images/base" in (caught.value.hint or "")
