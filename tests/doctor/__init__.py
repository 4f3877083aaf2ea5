"""The doctor, on fake nodes."""
