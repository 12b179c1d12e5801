"""What the initramfs script starts; kept tiny, because it is compiled at every start."""

import sys

sys.path.insert(0, __file__.rsplit("/", 3)[0])

from shed.guest.main import main

main()
