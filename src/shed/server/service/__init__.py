"""The server as a service of systemd: its unit, and installing it."""
