"""Container engines, for running one pinned program over files of this machine: docker or podman, whichever answers."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shed.errors import UnavailableError
from shed.images.builders.base import tool_environment
from shed.run import Argument, Completed, ToolError, run

WORK = "/shed/work"
"""Where the folder that a program works in is mounted in its container."""
_HINT = "install podman or docker, or start the docker daemon"
_PROBES = {"docker": "{{json .SecurityOptions}}", "podman": "{{.Host.Security.Rootless}}"}
"""What to ask for with ``info``, so that the answer tells whether the engine works, and whether it is rootless."""
_LIMITS = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
_MOST = 1024
"""Open files, and processes, that a program gets: more than it needs.  As root podman asks for 1,048,576 of each unless
it is told, and the container does not start where the host gives less and root may not raise that.
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answered."""

    program: str
    rootless: bool

    def image_id(self, reference: str) -> str | None:
        """Return the identifier of an image that the engine has, ``sha256:HEX``, or None."""
        done = run(
            [self.program, "image", "inspect", "--format", "{{.Id}}", reference], env=tool_environment(), check=False
        )
        text = done.stdout.decode().strip().removeprefix("sha256:")
        return f"sha256:{text}" if done.returncode == 0 and text else None

    def pull(self, reference: str) -> None:
        """Get an image from its registry.  Raises `ToolError`."""
        run([self.program, "pull", "--quiet", reference], env=tool_environment())

    def load(self, archive: Path) -> None:
        """Take over the images of an archive.  Raises `ToolError`."""
        run([self.program, "load", "--quiet", "--input", archive], env=tool_environment())

    def run(self, image: str, words: Sequence[Argument], *, work: Path | None = None) -> Completed:
        """Run a program of `image` to its end, without a network and as this user.

        It may write to the directory `work` alone.

        Raises `ToolError` with what it printed last.  When the caller is interrupted the container ends too.
        """
        mounts: list[Argument] = ["-v", f"{work.absolute()}:{WORK}", "-w", WORK, "-e", f"TMPDIR={WORK}"] if work else []
        name = f"shed-{os.getpid()}-{os.urandom(4).hex()}"
        confined = ["--rm", "--name", name, "--network", "none", "--read-only", "--security-opt", "label=disable"]
        confined += [*self._user(), *self._limits()]
        program, *arguments = words
        try:
            return run(
                [self.program, "run", *confined, *mounts, "--entrypoint", program, image, *arguments],
                env=tool_environment(),
            )
        except ToolError:
            raise
        except BaseException:
            run([self.program, "kill", name], env=tool_environment(), check=False)
            raise

    def _user(self) -> list[str]:
        """Return the options with which the program's files are ours; a rootless engine has users of its own."""
        if self.rootless and self.program == "docker":
            return ["-u", "0:0"]
        own = ["-u", f"{os.geteuid()}:{os.getegid()}"]
        return ["--userns=keep-id", *own] if self.rootless else own

    def _limits(self) -> list[str]:
        """Return the options that ask for no more than the host gives.

        Docker's engine, and podman without root, do that by themselves.
        """
        if self.program == "docker" or self.rootless:
            return []
        hard = {name: resource.getrlimit(kind)[1] for name, kind in _LIMITS.items()}
        most = {name: _MOST if limit == resource.RLIM_INFINITY else min(_MOST, limit) for name, limit in hard.items()}
        return [f"--ulimit={name}={limit}:{limit}" for name, limit in most.items()]


def find_engine() -> Engine:
    """Return the first engine that answers.  Raises `UnavailableError` (NO_CONTAINER_ENGINE) with what each said."""
    said = []
    for program, question in _PROBES.items():
        try:
            answer = run([program, "info", "--format", question], env=tool_environment()).stdout.decode().strip()
        except (UnavailableError, ToolError) as error:
            said.append(error.message)
            continue
        return Engine(program, answer == "true" or "rootless" in answer)
    raise UnavailableError(f"no container engine works: {'; '.join(said)}", code="NO_CONTAINER_ENGINE", hint=_HINT)
