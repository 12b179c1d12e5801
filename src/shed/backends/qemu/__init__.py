"""The QEMU backend: ordinary user, user-mode network, one virtio-serial port to the agent."""
