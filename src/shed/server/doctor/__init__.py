"""``shed-server doctor``: what is wrong with this host, found by looking, with no server needed."""
