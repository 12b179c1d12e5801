"""Snapshots on their way: as artifacts of registries, and in files."""
