"""For a process whose PYTHONPATH has this folder: a real server in it is held to the contract."""

import sys

if sys.orig_argv[-3:] == ["-m", "shed.server.main", "serve"]:
    from pathlib import Path

    sys.path.append(str(Path(__file__).parents[3]))

    from support.servers.contract import install

    install()
