"""The command line of `shed-server`, where it is wrong."""

import pytest

from shed.server.main import main
from shed.server.warm import Shape, parse_shape


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: COMMAND"),
        (["frob"], "invalid choice: 'frob'"),
        (["serve", "--frob"], "unrecognized arguments: --frob"),
        (["serve", "--config"], "argument --config: expected one argument"),
        (["doctor", "--js"], "unrecognized arguments: --js"),
        (["warm", "--shape", "4x"], "'4x' is not a shape"),
        (["warm", "--shape", "٣x1G"], "'٣x1G' is not a shape"),
        (["warm", "--shape", "2x2T"], "no shed can have the shape '2x2T'"),
        (["warm", "--shape", "2x1.0001M"], "'1.0001M' is not a whole number of megabytes"),
        (["warm", "--shape", f"1x{'9' * 400}G"], "is not a size"),
    ],
)
def test_one_sentence_and_a_hint(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As everything else that is told; exit code 2, and nothing on standard output."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    error, hint = err.splitlines()
    assert out == ""
    assert error.startswith("shed-server: ")
    assert message in error
    assert hint.startswith("  ")


def test_a_bare_number_in_a_shape_is_megabytes() -> None:
    """As in `shed create --memory`."""
    assert parse_shape("2x512") == parse_shape("2x512M") == Shape(2, 512)
