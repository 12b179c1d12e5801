"""Secrets that sheds use and never have, and the authorities by which that works."""
