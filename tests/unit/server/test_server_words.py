"""The command line of `shed-server`, where it is wrong."""

from pathlib import Path

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


def test_templates_that_no_server_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who asks for them is told that the configuration switches them off."""
    monkeypatch.setenv("SHED_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SHED_RUNTIME_DIR", str(tmp_path / "run"))
    config = tmp_path / "server.yaml"
    config.write_text("qemu:\n  warm_start: false\n")
    assert main(["warm", "--config", str(config)]) == 1
    warning, error, _ = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: qemu.warm_start is false")
    assert error == "shed-server: there is no image to boot"
    config.write_text("qemu:\n  warm_start: true\n")
    main(["warm", "--config", str(config)])
    assert "warning" not in capsys.readouterr().err


def test_a_bare_number_in_a_shape_is_megabytes() -> None:
    """As in `shed create --memory`."""
    assert parse_shape("2x512") == parse_shape("2x512M") == Shape(2, 512)
