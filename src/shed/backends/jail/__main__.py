"""``python -I -S …/jail``: the launcher as a program, which finds our sources by itself; with a word, the mounter."""

import sys

if __name__ == "__main__":
    sys.path[0] = __file__.removesuffix("/shed/backends/jail/__main__.py")
    if sys.argv[1:]:
        from shed.backends.jail.mounter import main
    else:
        from shed.backends.jail.launcher import main

    main()
