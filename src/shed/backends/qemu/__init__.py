"""Virtual machines as QEMU processes, emulated or with KVM.

They run as an ordinary user, with user-mode networking and 9P shares.
"""

from shed.backends.qemu.backend import QemuBackend
from shed.backends.qemu.templates import Limits

__all__ = ["Limits", "QemuBackend"]
