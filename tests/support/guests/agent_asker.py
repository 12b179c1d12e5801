"""A program in a shed that says to the SSH agent what it likes: each argument is a message, as hexadecimal digits.

It prints a line for each: the answer as hexadecimal digits, ``closed`` once the agent has hung up.
"""

import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as agent:
    agent.connect(os.environ["SSH_AUTH_SOCK"])
    answers = agent.makefile("rb")
    for word in sys.argv[1:]:
        message = bytes.fromhex(word)
        try:
            agent.sendall(len(message).to_bytes(4, "big") + message)
            answer = answers.read(int.from_bytes(answers.read(4), "big"))
        except OSError:
            answer = b""
        sys.stdout.write(f"{answer.hex() or 'closed'}\n")
