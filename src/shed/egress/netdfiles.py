"""Where the relay's process has its files."""

SOCKET, LOCK = "netd.sock", "netd.lock"
"""In the server's folder for sockets."""
LOG, DECISIONS = "netd.log", "egress.log"
"""In its folder for logs: what the process says of itself, and what was decided."""
