"""The descriptors of a launcher, and of the VMM that it becomes."""

PARENT = 3
"""The socket to whoever starts the VMM; closed when that runs."""
AGENT, MONITOR = 4, 5
"""Listening sockets: the agent's virtio-serial port, and QMP."""
CONSOLE, MESSAGES = 6, 7
"""Pipes to the keeper; `MESSAGES` becomes the VMM's standard output."""
NIC, NETWORK = 8, (9, 10, 11)
"""The network card's other end, and the sockets of the namespace that it leads to (`shed.egress.network.netns`)."""
FILES = 12
"""The first of the open files that the VMM gets; the one after the last is the machine's memory, if it is a file."""
MEMORY = "/memory"
"""What the VMM calls the file that is its memory; see `shed.backends.jail.attendant`."""
PASSED = 6
"""Descriptors below this one come from the parent as they are meant for the VMM."""
SAFE_FD = 64
"""From here on there are none of the above."""
