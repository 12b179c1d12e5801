"""Names of sheds and images."""

import pytest

from shed.errors import UsageError
from shed.names import check_image_name, check_shed_name


@pytest.mark.parametrize("name", ["a", "ab", "my-shed", "a1", "a" * 63, "a--b"])
def test_good_shed_names_pass(name: str) -> None:
    """One letter, or a DNS label that starts with a letter."""
    assert check_shed_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "-a", "a-", "a" * 64, "a_b", "a.b", "../x", "a\n", "é", "a b", "_api"])
def test_bad_shed_names_are_refused_with_the_rule(name: str) -> None:
    """The message repeats the name, the hint says the rule."""
    with pytest.raises(UsageError) as caught:
        check_shed_name(name)
    assert caught.value.code == "INVALID_SHED_NAME"
    assert repr(name) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["base", "Base_1.2-x", "_x", "9"])
def test_good_image_names_pass(name: str) -> None:
    """Image names are OCI tags."""
    assert check_image_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-x", "a/b", "a:b", "a" * 129, "a\n"])
def test_bad_image_names_are_refused(name: str) -> None:
    """Names that would leave the tags folder, hide in it, or not be a tag."""
    with pytest.raises(UsageError):
        check_image_name(name)
