"""A `systemctl` that notes how it is called, and plays a service manager whose one service does as it is told."""

from __future__ import annotations

from pathlib import Path

_SCRIPT = """\
#!/bin/sh
echo "$*" >> "{folder}/calls"
case "$*" in
*is-system-running*) echo running ;;
*is-active*) cat "{folder}/state" ;;
*"enable --now"* | *restart* | *" start"*)
    [ ! -e "{folder}/refuses" ] || {{ echo "Job for shed-server.service failed." >&2; exit 1; }}
    echo active > "{folder}/state" ;;
*"disable --now"* | *" stop"*) echo inactive > "{folder}/state" ;;
esac
"""


class FakeSystemctl:
    """The program, in `folder`/bin."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        (folder / "state").write_text("inactive\n")
        script = self.bin / "systemctl"
        script.write_text(_SCRIPT.format(folder=folder))
        script.chmod(0o755)

    def calls(self) -> list[str]:
        """Return the calls since the last time that change something, without the scope and the name of the service."""
        path = self._folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        short = [line.removesuffix(" shed-server.service").split(" ", 1)[1] for line in lines]
        return [line for line in short if not line.startswith("is-")]

    def state(self) -> str:
        """Return whether the service runs."""
        return (self._folder / "state").read_text().strip()

    def refuse(self) -> None:
        """Let the service fail from now on."""
        (self._folder / "refuses").touch()
