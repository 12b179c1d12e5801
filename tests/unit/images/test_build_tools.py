"""What ``--build-tools-version`` means."""

import pytest

from shed.errors import UsageError
from shed.images.writers import build_tools_reference

REGISTRY = "ghcr.io/charliek/shed-build-tools"


@pytest.mark.parametrize(
    ("wanted", "version", "reference"),
    [
        ("0.5.2", "0.6.0.dev1", f"{REGISTRY}:v0.5.2"),
        ("v0.5.2", "0.6.0.dev1", f"{REGISTRY}:v0.5.2"),
        ("v10.20.30", "0.5.2", f"{REGISTRY}:v10.20.30"),
        ("dev", "0.5.2", "shed-build-tools:dev"),
        ("mine_1", "0.5.2", "shed-build-tools:mine_1"),
        ("v0.5", "0.5.2", "shed-build-tools:v0.5"),
        ("0.5.2.1", "0.5.2", "shed-build-tools:0.5.2.1"),
        ("v0.5.2-rc1", "0.5.2", "shed-build-tools:v0.5.2-rc1"),
        ("vv0.5.2", "0.5.2", "shed-build-tools:vv0.5.2"),
        ("V0.5.2", "0.5.2", "shed-build-tools:V0.5.2"),
        ("shed-build-tools:dev", "0.5.2", "shed-build-tools:dev"),
        ("example.org/tools", "0.5.2", "example.org/tools"),
        ("example.org:5000/a/tools:v0.5.2", "0.5.2", "example.org:5000/a/tools:v0.5.2"),
        ("other:0.5.2", "0.5.2", "other:0.5.2"),
        (f"{REGISTRY}@sha256:{'0' * 64}", "0.5.2", f"{REGISTRY}@sha256:{'0' * 64}"),
        (None, "0.5.2", f"{REGISTRY}:v0.5.2"),
        (None, "v0.5.2", f"{REGISTRY}:v0.5.2"),
        (None, "0.6.0.dev3", "shed-build-tools:dev"),
        (None, "0.5.2-dirty", "shed-build-tools:dev"),
        (None, "0.5.2-4-gabcdef0", "shed-build-tools:dev"),
    ],
)
def test_resolution(wanted: str | None, version: str, reference: str) -> None:
    """What each way of naming the tools means, for each version of shed."""
    assert build_tools_reference(wanted, version=version) == reference


@pytest.mark.parametrize("wanted", ["", " dev", "-v/x", "--privileged", "a b", "0.5.2\n", "a\tb/c", "ä", "$(x)"])
def test_words_that_are_no_reference(wanted: str) -> None:
    """Nothing that an engine could take for an option, or that is no name, reaches it."""
    with pytest.raises(UsageError, match="invalid build tools version") as caught:
        build_tools_reference(wanted)
    assert caught.value.hint
