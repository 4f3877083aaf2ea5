"""Everything that asks or changes the kernel: sysfs, PCI drivers, rtnetlink, network namespaces."""
