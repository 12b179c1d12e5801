"""A `systemctl` that notes how it is called, and plays a service manager whose one service does as it is told."""

from __future__ import annotations

from pathlib import Path

from shed.server.service.systemd import UNIT

_SCRIPT = """\
#!/bin/sh
echo "$*" >> "{folder}/calls"
case "$*" in
*is-system-running*) echo running ;;
*is-active*)
    cat "{folder}/state"
    grep -qx active "{folder}/state" ;;
*is-enabled*) echo enabled ;;
*"enable --now"* | *start*)
    [ ! -e "{folder}/refuses" ] || {{ echo "Job for shed-server.service failed." >&2; exit 1; }}
    echo active > "{folder}/state" ;;
*"disable --now"* | *stop*) echo inactive > "{folder}/state" ;;
esac
"""


class FakeSystemctl:
    """The program, in `folder`/bin; `at` is that folder for those who run it, if they see it elsewhere."""

    def __init__(self, folder: Path, at: str | None = None) -> None:
        self._folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.set("inactive")
        script = self.bin / "systemctl"
        script.write_text(_SCRIPT.format(folder=at or folder))
        script.chmod(0o755)

    def calls(self) -> list[str]:
        """Return the calls since the last time that change the service, without the scope and the name of the
        service.
        """
        path = self._folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        calls = (
            " ".join(word for word in line.split() if word == "--now" or not (word.startswith("-") or word == UNIT))
            for line in lines
        )
        return [call for call in calls if not call.startswith("is-")]

    def state(self) -> str:
        """Return whether the service runs."""
        return (self._folder / "state").read_text().strip()

    def set(self, state: str) -> None:
        """Let the service be in this state."""
        (self._folder / "state").write_text(f"{state}\n")

    def refuse(self) -> None:
        """Let the service fail from now on."""
        (self._folder / "refuses").touch()
