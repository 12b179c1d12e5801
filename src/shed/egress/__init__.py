"""What a shed may reach: a network of its own that leads to the relay alone, and the rules that the relay asks."""
