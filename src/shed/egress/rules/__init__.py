"""What a shed may reach: rules about names, addresses, ports, methods and paths."""
