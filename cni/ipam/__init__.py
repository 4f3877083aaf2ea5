"""IPAM plugins: how one is run, and what is asked of it."""
