"""The `shed` command: parsing, tables, JSON, progress."""
