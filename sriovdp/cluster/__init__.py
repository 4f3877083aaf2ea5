"""The cluster's objects: those of sriov-network-operator, read and turned into our config and networks."""
