"""``python -I -S …/guard``: the supervisor as a program, which finds our sources by itself."""

import sys

if __name__ == "__main__":
    sys.path[0] = __file__.removesuffix("/shed/backends/guard/__main__.py")
    from shed.backends.guard.handover import take

    taken = take()
    if taken is not None:
        from shed.backends.guard.supervisor import run

        run(*taken)
