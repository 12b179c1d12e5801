"""The memory of the relay's process, which has the values of secrets."""

import subprocess
import sys

_PR_GET_DUMPABLE = 3
PROGRAM = f"""
import ctypes
from shed.egress.netd import keep_private
libc = ctypes.CDLL(None)
before = libc.prctl({_PR_GET_DUMPABLE}, 0, 0, 0, 0)
keep_private()
print(before, libc.prctl({_PR_GET_DUMPABLE}, 0, 0, 0, 0), open("/proc/self/stat").read().split()[0] != "")
"""


def test_it_is_in_no_core_file() -> None:
    """The kernel writes none for it, and lets no other process of its user read it; its own files in /proc stay."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "1 0 True\n"
