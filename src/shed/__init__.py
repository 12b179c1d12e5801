"""shed: persistent microVM development environments made from OCI images."""
