"""Sheds for agents, by the Model Context Protocol: `shed mcp`."""
