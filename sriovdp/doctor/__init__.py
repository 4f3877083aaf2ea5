"""Checks of a node: what is wrong with it, and the command that fixes it. Nothing here changes anything."""
