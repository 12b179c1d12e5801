import pytest

from shed.backends import mux


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest whose answer this process is slow to take in is not hung up on."""
    monkeypatch.setattr(mux, "HELLO_TIMEOUT", 30.0)
    monkeypatch.setattr(mux, "_MOST_PATIENCE", 30.0)
