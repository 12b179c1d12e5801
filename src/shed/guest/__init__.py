"""What runs inside the VM, and the protocol it speaks with the host.

Everything here uses the standard library alone and imports nothing else of shed; the host imports only `protocol`.
"""
