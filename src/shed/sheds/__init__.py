"""A shed's life: metadata, writable upper, create, start, stop, delete."""
