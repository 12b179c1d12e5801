"""The `shed-server` program: HTTP API, events, lifecycle of the process."""
