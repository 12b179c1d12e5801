"""What OCI defines: digests, descriptors, manifests, the layout store, archives, layers."""
