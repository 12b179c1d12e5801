"""The whole of shed in one go: from Debian packages to a command run in a VM, and back.  `make demo` runs it.

It uses the real command line and your ordinary store; a second run finds kernel and image there and makes nothing
again.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SHED = Path(sys.executable).with_name("shed")
NAME = f"demo-{os.getpid()}"
MESSAGE = "written before the stop"


def _bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


class Demo:
    """Runs commands, shows them as a user would type them, and keeps how long each step took."""

    def __init__(self) -> None:
        self.took: list[tuple[str, float]] = []

    def step(self, title: str, *command: str | Path) -> str:
        """Run one command and return what it printed; its progress goes to the terminal.

        A failure ends the demo with its exit code.
        """
        shown = shlex.join(str(word).removeprefix(f"{SHED.parent}/").removeprefix(f"{HERE}/") for word in command)
        print(f"\n{_bold(title)}\n  $ {shown}", flush=True)
        start = time.monotonic()
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=False)
        self.took.append((title, time.monotonic() - start))
        if done.returncode:
            print(done.stdout, end="")
            sys.exit(done.returncode)
        for line in done.stdout.splitlines():
            print(f"  {line}")
        return done.stdout

    def summary(self) -> None:
        """Say what happened, how long it took, and what to try next."""
        print("\nWhat happened")
        for title, seconds in self.took:
            print(f"  {seconds:6.1f} s  {title}")
        print(f"  {sum(seconds for _, seconds in self.took):6.1f} s  in all")
        print(
            "\nTry next (the command line is .venv/bin/shed)"
            "\n  shed create dev --local-dir .        a shed with this folder at /workspace"
            "\n  shed exec dev -- git -C /workspace log --oneline"
            "\n  shed console dev                     a shell in it"
            "\n  shed stop dev; shed start dev; shed delete dev"
            "\n  shed image ls; shed server stop"
            "\nMore: docs/quick-start.md; when something is wrong: shed-server doctor"
        )


def main() -> None:
    """Run the demo."""
    demo = Demo()
    if subprocess.run([SHED, "image", "inspect", "base"], capture_output=True, check=False).returncode:
        images = HERE / "scripts/images.py"
        demo.step("Boot kit and base image, from Debian packages", sys.executable, images, "base")
        demo.step("Virtual machines that sheds are restored from", SHED.with_name("shed-server"), "warm")
    demo.step("Create a shed", SHED, "create", NAME, "--image", "base", "-v")
    try:
        demo.step(
            "Run a command in it", SHED, "exec", NAME, "--", "sh", "-c", "id; uname -srm; grep PRETTY /etc/os-release"
        )
        demo.step("Write a file", SHED, "exec", NAME, "--", "sh", "-c", f"echo {MESSAGE} > /workspace/note")
        demo.step("Stop it", SHED, "stop", NAME)
        demo.step("Start it again", SHED, "start", NAME)
        survived = demo.step("The file survived", SHED, "exec", NAME, "--", "cat", "/workspace/note").strip() == MESSAGE
    finally:
        demo.step("Delete it", SHED, "delete", NAME, "--force")
    demo.summary()
    if not survived:
        sys.exit("the file did not survive the stop: this is a bug, please report it")


if __name__ == "__main__":
    main()
