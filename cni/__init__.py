"""The CNI plugin `type: sriov`: wire format, network configuration and verbs."""
