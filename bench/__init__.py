"""Benchmarks, run in the lab: figures for a person to read, never a test's pass or fail."""
