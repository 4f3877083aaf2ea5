"""SR-IOV and DPDK device manager for Kubernetes nodes."""
