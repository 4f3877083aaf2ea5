"""Recorded nodes as small text files: `nodes` makes sysfs trees of them."""
