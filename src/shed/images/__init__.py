"""What shed adds to an OCI image: annotations, the boot kit, minting, resolving."""
