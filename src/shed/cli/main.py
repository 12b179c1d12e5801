"""`shed`: the first thing that runs.

Starting up is felt on every use, so this file imports next to nothing, answers `version` by itself, and hands `exec` to
a module that is as frugal.  Every other command goes through `shed.cli.app`.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line of this process and return its exit code.

    0: done.  1: failed.  2: the command line itself is wrong.  3: a shed was made, but not all was done in it.  125:
    `exec` could not run its command.  130: interrupted.  Otherwise `exec` and `console` return what the command in the
    shed returned.
    """
    words = sys.argv[1:]
    if words in (["version"], ["--version"]):
        from shed.version import VERSION

        try:
            os.write(1, f"shed {VERSION}\n".encode())
        except OSError:  # nobody reads it
            return 1
        return 0
    if words[:1] == ["__complete"]:  # asked by the scripts of `shed completion`
        from shed.cli.completion import answer

        code = answer(words[1:])
        sys.stdout.flush()
        return code
    from shed.cli.options import Options

    options = Options()
    try:
        if words[:1] == ["exec"]:
            from shed.cli.exec import exec_command

            return exec_command(words[1:], options)
        from shed.cli.app import run

        code = run(words, options)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  the one place where everything ends up
        from shed.cli.errors import explain

        return explain(error, options)
    return code


if __name__ == "__main__":
    sys.exit(main())
