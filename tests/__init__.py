"""The tests; those of the lab report from inside its virtual machine."""
