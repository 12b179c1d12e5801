"""The command line of `shed-server`, where it is wrong."""

import pytest

from shed.server.main import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: COMMAND"),
        (["frob"], "invalid choice: 'frob'"),
        (["serve", "--frob"], "unrecognized arguments: --frob"),
        (["serve", "--config"], "argument --config: expected one argument"),
        (["doctor", "--js"], "unrecognized arguments: --js"),
        (["warm", "--shape", "4x"], "'4x' is not a shape"),
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
