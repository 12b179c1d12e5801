"""The network namespace of a VM, and what is known of the host's own network."""
