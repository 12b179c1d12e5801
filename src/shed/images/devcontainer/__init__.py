"""Images of projects: what a ``devcontainer.json`` asks for, with its features, built and minted on this machine."""
