"""What the lab's machine is made of, and QEMU's command line for it.

Memory is fixed at 2 GiB and the 64-bit PCI hole is off: QEMU 10.0.2 maps a VF's BAR that lies above 4 GiB at its low
32 bits only, and such VFs never leave reset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MEMORY_MIB = 2048
MAX_PFS = 4
VIRTIO_VFS = 4
ALONE_MAC = "52:54:00:bb:01:00"
"""Of the network function beside the virtio PF that has no PF and no VFs: so a virtual machine sees a VF."""
_HUGE_PAGE_MIB = 2

Nic = Literal["igb", "virtio"]
Root = Literal["host", "trixie"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One machine. `pfs` Intel 82576 PFs, each with up to 7 usable VFs; or, by `nic`, one virtio PF with 4.

    Beside the virtio PF there is one function without a PF.
    `roots` puts a PF behind a PCIe root port; several PFs have one each anyway, as their VFs would take the same slots.
    `numa` makes two NUMA nodes and spreads the PFs over them; `wire` joins all PFs in one Ethernet segment; `hugepages`
    is MiB of 2 MiB pages; `containerd` starts it before the command; `control_plane` gives the machine a Kubernetes API
    server, as `tests.lab.control_plane` has it. With a `disk` it may reboot, and keeps what a node keeps on its disk.
    `vnic` lists cards of the software NIC, as `tests/lab/vnic/main.c` reads them: `ice:8,mlx5:128/numvfs_ms=500`.
    With `monitor` the machine's own monitor is a port in the guest, see `tests.lab.monitor`: it pulls cables.
    `root` is the system: this machine's own, or Debian 13 (`setup/guest_root.py`), whose containerd has CDI and NRI on.
    """

    pfs: int = 1
    roots: bool = False
    numa: bool = False
    wire: bool = False
    hugepages: int = 0
    containerd: bool = False
    control_plane: bool = False
    disk: bool = False
    nic: Nic = "igb"
    vnic: str = ""
    root: Root = "host"
    monitor: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.pfs <= MAX_PFS:
            raise ValueError(f"{self.pfs} PFs asked for; 0 to {MAX_PFS} fit below 4 GiB")
        if not 0 <= self.hugepages <= MEMORY_MIB // 2:
            raise ValueError(f"{self.hugepages} MiB of huge pages asked for; the machine has {MEMORY_MIB} MiB in all")

        if self.nic == "virtio" and (self.pfs != 1 or self.roots or self.numa or self.control_plane):
            raise ValueError("one virtio PF is what there is, behind its root port, and no API server beside it")

    def kernel_options(self) -> str:
        """What this shape adds to the kernel's command line."""
        return f"hugepages={self.hugepages // _HUGE_PAGE_MIB}" if self.hugepages else ""

    def qemu_options(self) -> list[str]:
        """QEMU's options for memory, IOMMU and NICs."""
        return [
            *("-m", f"{MEMORY_MIB}M", "-smp", "2"),
            *("-global", "q35-pcihost.pci-hole64-size=0", "-global", "q35-pcihost.x-pci-hole64-fix=off"),
            *("-device", "intel-iommu,intremap=on"),
            *(self._numa_options() if self.numa else ()),
            *(self._virtio_options() if self.nic == "virtio" else self._nic_options()),
        ]

    def _numa_options(self) -> Iterator[str]:
        for node in (0, 1):
            yield from ("-object", f"memory-backend-ram,id=memory{node},size={MEMORY_MIB // 2}M")
            yield from ("-numa", f"node,nodeid={node},cpus={node},memdev=memory{node}")
            # a host bridge of its own is what shows the guest on which node a device is
            yield from ("-device", f"pxb-pcie,id=bridge{node},bus_nr={64 + 64 * node},numa_node={node},bus=pcie.0")

    def _virtio_options(self) -> Iterator[str]:
        """One PF and its VFs, functions of one device, and a function by itself; all in one Ethernet segment."""
        yield from ("-netdev", "user,id=nowhere,restrict=on,ipv6=off")
        yield from ("-netdev", "hubport,id=uplink,hubid=1,netdev=nowhere")
        yield from ("-device", "pcie-root-port,id=root0,bus=pcie.0,chassis=1,slot=1")
        common = "disable-legacy=on,iommu_platform=on,ats=on"
        # QEMU makes a PF of the function that the others name: it comes last
        for function in range(VIRTIO_VFS, -1, -1):
            yield from ("-netdev", f"hubport,hubid=1,id=net{function}")
            role = f"sriov-pf=pf0,{common}" if function else "id=pf0,disable-legacy=on"
            place = f"bus=root0,addr=0x0.0x{function},mac=52:54:00:bb:00:{function:02x}"
            yield from ("-device", f"virtio-net-pci,{place},netdev=net{function},{role}")
        yield from ("-netdev", "hubport,hubid=1,id=alone")
        yield from ("-device", f"virtio-net-pci,bus=pcie.0,mac={ALONE_MAC},netdev=alone,disable-legacy=on")

    def _nic_options(self) -> Iterator[str]:
        if self.wire:
            # a network that goes nowhere; without one QEMU warns about a hub without a host side
            yield from ("-netdev", "user,id=nowhere,restrict=on,ipv6=off")
            yield from ("-netdev", "hubport,id=uplink,hubid=1,netdev=nowhere")
        for number in range(self.pfs):
            backend = "hubport,hubid=1" if self.wire else "user,restrict=on,ipv6=off"
            yield from ("-netdev", f"{backend},id=net{number}")
            bus = "pcie.0"
            if self.roots or self.numa or self.pfs > 1:
                parent = f"bridge{number % 2}" if self.numa else "pcie.0"
                bus = f"root{number}"
                yield from ("-device", f"pcie-root-port,id={bus},bus={parent},chassis={number + 1},slot={number + 1}")
            yield from (
                "-device",
                f"igb,id=pf{number},mac=52:54:00:aa:00:{number + 1:02x},netdev=net{number},bus={bus}",
            )
