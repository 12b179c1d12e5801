"""Recipes of images: what is read, what is refused, what mmdebstrap is told."""

import shlex
import subprocess
from pathlib import Path

import pytest

from shed.errors import UsageError
from shed.images.bootkit.debian_archive import DebianArchive
from shed.images.recipe import RECIPES, Recipe, mmdebstrap_command, read_recipe

IMAGES = RECIPES
BASE = IMAGES / "base"
CLEAN = IMAGES.with_name("recipe-clean")


def test_the_base_recipe_has_what_sheds_promise() -> None:
    """Tools, the user and the folder to work in."""
    recipe = read_recipe(BASE)
    assert {"bash", "git", "tmux", "sudo", "openssh-client", "curl", "python3", "ca-certificates"} <= set(
        recipe.packages
    )
    assert (recipe.config["User"], recipe.config["WorkingDir"]) == ("shed", "/workspace")


def test_packages_are_signed_and_security_fixes_are_in() -> None:
    """Each source names Debian's keyring; the suite's own, its updates, and its security archive."""
    recipe = read_recipe(BASE)
    command = [str(word) for word in mmdebstrap_command(recipe, DebianArchive(), Path("out.tar"))]
    sources = [word for word in command if word.startswith("deb ")]
    assert [source.split()[3] for source in sources] == ["trixie", "trixie-updates", "trixie-security"]
    assert all("[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" in source for source in sources)
    hooks = [word for word in command if word.startswith("--customize-hook=sh -c ")]
    assert [shlex.split(hook)[2] for hook in hooks] == [(BASE / "customize").read_text(), CLEAN.read_text()]


def test_a_recipe_on_another_starts_with_its_tree() -> None:
    """No second Debian is made: the tree goes in first, and what is in it installs the packages."""
    recipe = read_recipe(IMAGES / "extensions")
    assert recipe.parent
    assert (recipe.parent.name, recipe.suite) == ("base", "trixie")
    command = [str(word) for word in mmdebstrap_command(recipe, DebianArchive(), Path("out.tar"), Path("a b.tar"))]
    assert "--variant=custom" in command
    assert "--setup-hook=tar-in 'a b.tar' /" in command
    (install,) = [word for word in command if "apt-get" in word]
    assert {"systemd-sysv", "openssh-server"} <= set(install.split())


@pytest.mark.parametrize("name", ["base", "extensions", "full"])
def test_packages_are_named_once(name: str) -> None:
    """No image asks for a package that it, or one below it, asked for already."""
    names: list[str] = []
    recipe: Recipe | None = read_recipe(IMAGES / name)
    while recipe:
        names += recipe.packages
        recipe = recipe.parent
    assert sorted(set(names)) == sorted(names)


WRONG = [
    "",
    "suite: x",
    "suite: 1\nconfig: {}",
    "suite: x\nconfig: {}\nextra: 1",
    "suite: x\nfrom: ../y\nconfig: {}",
    "a: [",
    "- x",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str) -> None:
    """Missing, unknown or wrong keys, and what is not YAML."""
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        read_recipe(tmp_path)


def test_recipes_that_build_on_each_other_are_refused(tmp_path: Path) -> None:
    """However long the circle is."""
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(f"from: ../{other}\nconfig: {{}}")
    with pytest.raises(UsageError, match="builds on itself"):
        read_recipe(tmp_path / "a")


def test_a_recipe_without_packages_is_told_so(tmp_path: Path) -> None:
    """The file is named."""
    (tmp_path / "recipe.yaml").write_text("suite: trixie\nconfig: {}")
    with pytest.raises(UsageError, match="packages does not exist"):
        read_recipe(tmp_path)


def test_a_folder_without_a_recipe_is_named(tmp_path: Path) -> None:
    """The hint names one that works."""
    with pytest.raises(UsageError, match="does not exist") as caught:
        read_recipe(tmp_path)
    assert "base" in (caught.value.hint or "")


@pytest.mark.root
def test_a_script_needs_not_be_readable_where_it_runs(tmp_path: Path) -> None:
    """For an ordinary user, hooks run as another one, who cannot enter that user's home."""
    recipe = tmp_path / "home/mine"
    recipe.mkdir(parents=True, mode=0o700)
    (recipe / "customize").write_text('echo "it\'s $0 on $1"\n')
    (tmp_path / "home").chmod(0o700)
    mine = Recipe(recipe, "trixie", None, (), {})
    command = [str(word) for word in mmdebstrap_command(mine, DebianArchive(), Path("out.tar"))]
    hook = next(word for word in command if str(recipe) in word).removeprefix("--customize-hook=")
    shell: list[str] = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sh",
        "-c",
        hook,
        "exec",
        "/root",
    ]
    said = subprocess.run(shell, capture_output=True, text=True, check=True, cwd="/").stdout
    assert said == f"it's {recipe / 'customize'} on /root\n"
