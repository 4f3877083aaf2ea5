"""Pools of devices: what is offered to containers, and what they are given."""
