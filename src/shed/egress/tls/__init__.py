"""Connections that are opened to be ruled request by request."""
