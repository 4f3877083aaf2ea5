"""Fuzzing of everything that the agent reads and did not write itself, or that a disk can have damaged since."""
