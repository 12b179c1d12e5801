"""The program that keeps a folder in a shed, and the pipes to it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Protocol

from shed import replica
from shed.client.address import Address
from shed.client.asking import Reader
from shed.client.copying import CopyError
from shed.client.execution import Execution
from shed.errors import BackendError, ShedError
from shed.execstream import script
from shed.untrusted import told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MODULES = ("entry", "files", "folder", "news", "wire", "serve")
_BEGIN = """
import sys
def load(name, source=None):
    module = sys.modules[name] = type(sys)(name)
    module.__path__ = []
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
    if source is not None:
        exec(compile(source, name, "exec"), module.__dict__)
for name in ("shed", "shed.replica"):
    load(name)
"""
"""What follows does not depend on what the image of a shed has of shed."""
_MOST_SAID = 4096


class Channel(Protocol):
    """Two pipes to the program, in blocking mode."""

    reading: int
    writing: int

    def close(self) -> None:
        """End the program."""
        ...

    def why(self) -> ShedError:
        """Return why it has ended; to be asked once `reading` has."""
        ...


def program() -> str:
    """Return the source of the program, which is sent along."""
    folder = Path(replica.__file__).parent
    loads = [f"load('shed.replica.{name}', {folder.joinpath(f'{name}.py').read_text()!r})" for name in _MODULES]
    return "\n".join([_BEGIN, *loads, "sys.modules['shed.replica.serve'].main()"])


class ShedChannel:
    """The program in the shed `name`, run by `user`."""

    def __init__(self, address: Address, name: str, *, user: str | None, on_start: Callable[[], None]) -> None:
        """Raises what an `Execution` does."""
        self._name = name
        self._said = bytearray()
        self._problem: ShedError | None = None
        self._execution = Execution(address, name, script(program()), user=user, on_start=on_start)
        self._input, self.writing = os.pipe()
        self.reading, self._output = os.pipe()
        self._errors = Reader(self._hear)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the program."""
        self._execution.hang_up()
        os.close(self.writing)
        os.close(self.reading)
        self._thread.join()

    def why(self) -> ShedError:
        """Return why it has ended."""
        self._thread.join()
        self._errors.join()
        lines = self._said.decode(errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "")
        if self._problem is None and not said:  # the shed was stopped, or it was killed there
            return BackendError(f"lost what keeps the folder in {self._name}", code="EXEC_LOST")
        return self._problem or CopyError(
            f"shed {self._name!r}: what keeps its folder has ended: {told(said)}",
            hint="see its folder, and its user's rights there",
        )

    def _hear(self, data: bytes) -> None:
        self._said += data
        del self._said[:-_MOST_SAID]

    def _carry(self) -> None:
        try:
            with self._execution:
                self._execution.run(stdin=self._input, stdout=self._output, stderr=self._errors.end)
        except ShedError as error:
            self._problem = error
        finally:
            for fd in (self._input, self._output, self._errors.end):
                os.close(fd)
