"""A node in a folder: sysfs as in tests/recordings, the files that checks read, and answers. Tests break it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from sriovdp.cli.doctor import prepare
from sriovdp.cli.options import DEFAULT_CONFIG
from sriovdp.doctor.check import Check
from sriovdp.doctor.examined import Folders
from sriovdp.doctor.verdict import CHECKS, Verdict, examine, sort
from tests.recordings.nodes import Builder

PF = "0000:3b:00.0"
VFS = tuple(f"0000:3b:02.{index}" for index in range(4))
BOOT = "11111111-2222-3333-4444-555555555555"
MACS = [f"02:00:00:00:aa:0{index}" for index in range(4)]
POLICIES = {"topologyManagerPolicy": "best-effort", "cpuManagerPolicy": "static"}
CONFIG: dict[str, Any] = {
    "physicalFunctions": [
        {
            "select": {"pfNames": ["ens1f0"]},
            "numVfs": 4,
            "vfs": [
                {"range": "0-1", "driver": "kernel", "mac": "keep"},
                {"range": "2-3", "driver": "vfio-pci", "mac": "keep"},
            ],
        }
    ],
    "resourceList": [
        {"resourceName": "net", "selectors": {"drivers": ["iavf"]}},
        {"resourceName": "dpdk", "selectors": {"drivers": ["vfio-pci"]}},
    ],
}


class FakeNode:
    """A well node. `function` describes its PF as in tests/recordings; changes to it count before `write`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config: dict[str, Any] = json.loads(json.dumps(CONFIG))
        self.function: dict[str, Any] = {
            "address": PF,
            "bridge": "0000:3a:00.0",
            "class": "0x020000",
            "vendor": "0x8086",
            "device": "0x158b",
            "numa": 0,
            "driver": "i40e",
            "netdev": {"name": "ens1f0"},
            "sriov": {
                "total": 8,
                "device": "154c",
                "offset": 16,
                "stride": 1,
                "vfs": [
                    {"count": 2, "driver": "iavf", "netdev": {"name": "ens1f0v{n}"}},
                    {"count": 2, "driver": "vfio-pci"},
                ],
            },
        }
        settings = {str(index): {"mac": mac, "spoofchk": True, "trust": False} for index, mac in enumerate(MACS)}
        self.netlink: dict[str, Any] = {"vf_settings": {PF: settings}, "loadable_drivers": ["vfio-pci", "igb_uio"]}
        self.drivers = ["vfio-pci", "iavf", "i40e"]
        self.answers: dict[str, Sequence[str]] = {
            "clock": ["1790000000", "1789990000"],
            "disk": ["1000000000 1000 0"],
            "processes": ["containerd 812", "kubelet 900"],
            "kernel-log": [],
            "holders": [],
            "pod-resources": ["ok"],
            "agent": ["ok"],
            "cni-plugin": ["sriovdp"],
            "node": ["node7.example.com"],
            "xdp": [],
        }

    def write(self) -> "FakeNode":
        """Make the folder."""
        sysfs = self.root / "sys"
        sysfs.mkdir(parents=True)
        node = {"functions": [self.function], "drivers": self.drivers, "netlink": self.netlink}
        Builder(sysfs).build(node)
        for index in range(2):
            if (netdev := self.netdev(f"ens1f0v{index}")).is_dir():
                (netdev / "address").write_text(f"{MACS[index]}\n")
        for vf in (*VFS, PF):
            if (link := self.pci(vf) / "iommu_group").is_symlink():
                self.put(f"sys/kernel/iommu_groups/{link.readlink().name}/devices/{vf}")
            if self.pci(vf).exists():
                self.put(f"sys/devices/pci0000:00/0000:3a:00.0/{vf}/driver_override", "(null)")
        self._write_sysfs()
        self._write_files()
        return self

    def _write_sysfs(self) -> None:
        self.put("sys/class/iommu/dmar0")
        self.put("sys/firmware/acpi/tables/DMAR")
        self.put("sys/kernel/security/lockdown", "[none] integrity confidentiality")
        self.put("sys/module/module/parameters/sig_enforce", "N")
        self.put("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N")
        for folder in ("sys/kernel/mm", "sys/devices/system/node/node0", "sys/devices/system/node/node1"):
            self.put(f"{folder}/hugepages/hugepages-2048kB/nr_hugepages", "512")
            self.put(f"{folder}/hugepages/hugepages-2048kB/free_hugepages", "256")
        bar = "0x0000000092000000 0x000000009207ffff 0x0000000000140204"
        self.put_pf("resource", "\n".join([bar] * 13))
        for name, value in (("link_speed", "16.0 GT/s PCIe"), ("link_width", "8")):
            self.put_pf(f"current_{name}", value)
            self.put_pf(f"max_{name}", value)
        for name in ("fatal", "nonfatal"):
            self.put_pf(f"aer_dev_{name}", f"Undefined 0\nTOTAL_ERR_{name.upper()} 0")

    def _write_files(self) -> None:
        self.put("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=UUID=5e1f ro intel_iommu=on iommu=pt password=hunter2")
        self.put("proc/cpuinfo", "processor : 0\nvendor_id : GenuineIntel\n")
        self.put("proc/sys/kernel/osrelease", "6.12.17-amd64")
        self.put("proc/sys/kernel/random/boot_id", BOOT)
        self.put("proc/812/limits", "Max locked memory         unlimited            unlimited            bytes")
        self.put("lib/modules/6.12.17-amd64/modules.dep")
        self.put("etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"')
        self.put("etc/sriovdp/config.yaml", yaml.safe_dump(self.config))
        self.put("etc/containerd/config.toml", "version = 3\n")
        multus = {"name": "multus", "type": "multus", "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig"}
        self.put("etc/cni/net.d/00-multus.conf", json.dumps(multus))
        self.put("etc/cni/net.d/multus.d/multus.kubeconfig")
        flannel = {"name": "cbr0", "plugins": [{"type": "flannel", "ipam": {"type": "host-local"}}]}
        self.put("etc/cni/net.d/10-flannel.conflist", json.dumps(flannel))
        for name in ("sriov", "multus", "flannel", "host-local"):
            self.put(f"opt/cni/bin/{name}").chmod(0o755)
        for name in ("device-plugins/kubelet.sock", "pod-resources/kubelet.sock"):
            self.put(f"var/lib/kubelet/{name}")
        for pool in ("net", "dpdk"):
            self.put(f"var/lib/kubelet/plugins_registry/sriovdp-intel.com_{pool}-0a1b2c3d.sock")
        self.put("var/lib/kubelet/config.yaml", yaml.safe_dump(POLICIES))
        self.put("run/sriovdp/agent.sock")
        for name in ("vfio", *(str(group) for group in range(1, 9))):
            self.put(f"dev/vfio/{name}")
        for folder in ("var/lib/sriovdp/journal", "usr/lib/systemd/system"):
            (self.root / folder).mkdir(parents=True)
        for name, lines in self.answers.items():
            self.answer(name, *lines)

    def put(self, path: str, text: str = "") -> Path:
        """Write a file."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")
        return place

    def put_pf(self, name: str, text: str) -> None:
        """Write an attribute of the PF."""
        self.put(f"sys/devices/pci0000:00/0000:3a:00.0/{PF}/{name}", text)

    def answer(self, name: str, *lines: str) -> None:
        """Record an answer."""
        self.put(f"doctor/{name}.json", json.dumps(lines))

    def remove(self, path: str) -> None:
        """Remove a file."""
        (self.root / path).unlink()

    def pci(self, address: str) -> Path:
        """Folder of a PCI function."""
        return self.root / "sys/devices/pci0000:00/0000:3a:00.0" / address

    def netdev(self, name: str) -> Path:
        """Folder of a netdev."""
        return self.root / "sys/class/net" / name

    def attach(self, index: int = 0, **changes: object) -> None:
        """An entry of the journal: pod shop/web-1 has a VF."""
        entry = {
            "version": 1,
            "container_id": "ab" * 32,
            "ifname": "net1",
            "network": "customer-net",
            "device": VFS[index],
            "mode": "kernel",
            "original": {"driver": "iavf", "settings": None},
            "netns": "/run/netns/cni-5b7f0c1e-97d4-4f6b-a1d1-000102030405",
            "netns_dev": 4,
            "netns_ino": 5,
            "boot_id": BOOT,
            "args": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1",
            "phase": "attached",
        } | changes
        self.put(f"var/lib/sriovdp/journal/attachment-{'ab' * 32}-net1.json", json.dumps(entry))


def diagnose(node: FakeNode, checks: Sequence[Check] = CHECKS) -> list[Verdict]:
    """What the doctor finds, the worst first."""
    return sort(examine(prepare(node.root, DEFAULT_CONFIG, "", None, None, Folders()), checks))
