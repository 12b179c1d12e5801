"""Talking to OCI registries: references, credentials, and one repository at a time.

Imported only when a registry is used.
"""
