"""What a VMM gets of the host to read."""

from __future__ import annotations

from pathlib import Path

from shed.backends.jail.plan import Jail, orders


def test_a_program_in_a_home_does_not_bring_the_home_along(tmp_path: Path) -> None:
    """It gets itself, and its libraries and data beside it."""
    for folder in ("bin", "lib", "share/qemu", ".ssh"):
        (tmp_path / folder).mkdir(parents=True)
    program = tmp_path / "bin/qemu-system-x86_64"
    program.touch()
    sources = {Path(source) for source, _, _ in orders(Jail(program), uid=1000, gid=1000)["mounts"]}
    assert {tmp_path / "lib", tmp_path / "share/qemu", program} <= sources
    assert not any((tmp_path / ".ssh").is_relative_to(source) for source in sources)
