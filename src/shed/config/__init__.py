"""Configuration files: strict, unknown keys refused with a suggestion."""
