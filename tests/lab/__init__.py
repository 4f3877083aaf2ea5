"""The lab: a virtual machine with emulated SR-IOV NICs, and the tests that run in it."""
