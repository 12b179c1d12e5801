"""The HTTP client of a shed server: used by the command line, and as the Python SDK."""
