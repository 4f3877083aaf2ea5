"""Tests for `test_lab.py` to see how guests are shared and how results are reported. Not collected by themselves."""
