"""What confines a process on Linux, by system calls that the standard library does not have: x86-64 alone."""
