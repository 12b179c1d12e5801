"""Where the relay's process has its files."""

SOCKET, LOCK = "netd.sock", "netd.lock"
"""In the server's folder for sockets."""
RETIRED = "netd.old"
"""What the socket of a process that has retired is called; a number comes behind it."""
LOG, DECISIONS = "netd.log", "egress.log"
"""In its folder for logs: what the process says of itself, and what was decided."""
