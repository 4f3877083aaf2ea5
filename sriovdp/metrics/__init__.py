"""Prometheus metrics of the agent; imported only when they are asked for, as the library takes 46 ms."""
