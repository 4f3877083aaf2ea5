"""The demonstration: the life of pods on a node with an SR-IOV NIC, shown on the terminal."""
