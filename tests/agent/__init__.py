"""The agent as a whole."""
