"""Nodes on each of which one thing is broken: what, and what the doctor has to say of it first."""

import json
import shutil
from collections.abc import Callable

import yaml

from tests.doctor.fake_node import PF, POLICIES, VFS, FakeNode

Break = Callable[[FakeNode], object]


def _set_netdev(name: str, **values: str) -> Break:
    return lambda node: [(node.netdev(name) / key).write_text(f"{value}\n") for key, value in values.items()]


def _unbind(index: int) -> Break:
    return lambda node: (node.pci(VFS[index]) / "driver").unlink()


def _forget_groups(node: FakeNode) -> None:
    for address in (PF, *VFS):
        (node.pci(address) / "iommu_group").unlink()
    node.remove("sys/class/iommu/dmar0")


def _share_group(node: FakeNode) -> None:
    group = (node.pci(VFS[2]) / "iommu_group").readlink().name
    node.put(f"sys/kernel/iommu_groups/{group}/devices/{PF}")


def _put(path: str, text: str = "") -> Break:
    return lambda node: node.put(path, text)


def _config(**changes: object) -> Break:
    """Another config, written over."""
    return lambda node: node.put("etc/sriovdp/config.yaml", yaml.safe_dump(node.config | changes))


def _entry(**changes: object) -> Break:
    return lambda node: _config(physicalFunctions=[node.config["physicalFunctions"][0] | changes])(node)


def _remove_vfs(node: FakeNode) -> None:
    for index, address in enumerate(VFS):
        (node.pci(PF) / f"virtfn{index}").unlink()
        (node.root / "sys/bus/pci/devices" / address).unlink()
    node.put_pf("sriov_numvfs", "0")


def _both(*breaks: Break) -> Break:
    return lambda node: [one(node) for one in breaks]


def _rules(line: str) -> Break:
    return _put("etc/udev/rules.d/70-nics.rules", f"# a comment with sriov_numvfs\n{line}")


def _multus_last(node: FakeNode) -> None:
    (node.root / "etc/cni/net.d/00-multus.conf").rename(node.root / "etc/cni/net.d/70-multus.conf")


def _remove_networks(node: FakeNode) -> None:
    shutil.rmtree(node.root / "etc/cni/net.d")
    (node.root / "etc/cni/net.d").mkdir()


def _damage(node: FakeNode) -> None:
    node.put(f"var/lib/sriovdp/journal/attachment-{'cd' * 32}-net1.json", '{"device": "0000:3b:02.0"')


UNSET_BAR = "0x0000000000000000 0x000000000003ffff 0x0000000020140204"

BROKEN: dict[str, tuple[Break, str, str, str]] = {
    "the clock was never set": (
        lambda n: n.answer("clock", "100", "0"),
        "fail",
        "clock",
        "1970-01-01: it was never set",
    ),
    "the clock jumped back": (
        lambda n: n.answer("clock", "1790000000", "1790007200"),
        "warn",
        "clock",
        "120 minutes behind",
    ),
    "the disk is full": (lambda n: n.answer("disk", "4096 10 0"), "fail", "disk", "4 KiB and 10 files left"),
    "the disk is read-only": (lambda n: n.answer("disk", "100000000 10 1"), "fail", "disk", "its disk is read-only"),
    "the config has a fault": (_config(resourceLst=[]), "fail", "config", "resourceLst"),
    "the config is no YAML": (_put("etc/sriovdp/config.yaml", "a: ["), "fail", "config", "line "),
    "a pool takes nothing": (
        _both(
            _config(resourceList=[{"resourceName": "x", "selectors": {"vendors": ["15b3"]}}]),
            _put("var/lib/kubelet/plugins_registry/sriovdp-intel.com_x-0a1b2c3d.sock"),
        ),
        "warn",
        "config-fit",
        "intel.com/x stays empty",
    ),
    "an old kernel": (
        _put("proc/sys/kernel/osrelease", "4.18.0-553.el8"),
        "fail",
        "kernel",
        "Linux 4.18.0-553.el8: VFs",
    ),
    "no IOMMU, by the firmware": (
        _both(_forget_groups, lambda n: n.remove("sys/firmware/acpi/tables/DMAR")),
        "fail",
        "iommu",
        "no IOMMU is at work, and the firmware describes none; the config wants VFs of ens1f0 on vfio-pci",
    ),
    "no IOMMU, by the kernel": (_forget_groups, "fail", "iommu", "although the firmware describes Intel VT-d"),
    "no IOMMU, by an argument": (
        _both(_forget_groups, _put("proc/cmdline", "ro intel_iommu=off")),
        "fail",
        "iommu",
        "the kernel was started with intel_iommu=off",
    ),
    "a group with a PF": (_share_group, "fail", "iommu-groups", f"its IOMMU group 4 has {PF} on a kernel driver"),
    "no IOMMU is allowed": (
        _put("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y"),
        "warn",
        "noiommu",
        "a pod can write to all memory",
    ),
    "a driver that is not there": (
        _entry(vfs=[{"range": "0-1", "mac": "keep"}, {"range": "2-3", "driver": "uio_pci_generic", "mac": "keep"}]),
        "fail",
        "modules",
        "ens1f0: the config wants uio_pci_generic, and this kernel has no such driver",
    ),
    "modules of another kernel": (
        lambda n: n.remove("lib/modules/6.12.17-amd64/modules.dep"),
        "warn",
        "modules",
        "nothing of the running kernel 6.12.17-amd64",
    ),
    "a module is barred": (
        _put("etc/modprobe.d/x.conf", "blacklist igbvf"),
        "warn",
        "modules",
        "x.conf: blacklist igbvf",
    ),
    "a driver makes VFs": (
        _put("etc/modprobe.d/x.conf", "options ixgbe max_vfs=8"),
        "warn",
        "modules",
        "makes VFs by itself",
    ),
    "lockdown and an unsigned module": (
        _both(
            _entry(vfs=[{"range": "0-1", "mac": "keep"}, {"range": "2-3", "driver": "igb_uio", "mac": "keep"}]),
            _put("sys/kernel/security/lockdown", "none [integrity] confidentiality"),
            lambda n: n.answer("signature-igb_uio", "unsigned"),
        ),
        "fail",
        "lockdown",
        "lockdown is integrity: module igb_uio is not signed",
    ),
    "no huge pages": (
        _put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0"),
        "warn",
        "hugepages",
        "there are no huge pages",
    ),
    "no huge pages where the PF is": (
        _put("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "0"),
        "warn",
        "hugepages",
        "ens1f0: NUMA node 0 has no huge pages",
    ),
    "the kernel's log": (
        lambda n: n.answer("kernel-log", "i40e 0000:3b:00.0: Malicious Driver Detection event on VF 1"),
        "warn",
        "kernel-log",
        "Malicious Driver Detection event on VF 1",
    ),
    "no network function": (
        _both(lambda n: (n.root / "sys/bus/pci/devices" / PF).unlink()),
        "fail",
        "devices",
        "no PCI network",
    ),
    "a PF without a driver": (
        _both(_remove_vfs, lambda n: (n.pci(PF) / "driver").unlink()),
        "fail",
        "devices",
        f"{PF}: no driver is bound to this PF",
    ),
    "SR-IOV is off in the firmware": (
        _both(_remove_vfs, lambda n: n.put_pf("sriov_totalvfs", "0")),
        "fail",
        "firmware",
        f"ens1f0 ({PF}): it can have no VFs",
    ),
    "more VFs than possible": (_entry(numVfs=9), "fail", "firmware", "the config wants 9 VFs, it can have 8"),
    "no MMIO space": (
        _both(
            _remove_vfs,
            lambda n: n.put_pf("resource", "\n".join(["0x0 0x0 0x0"] * 7 + [UNSET_BAR] + ["0x0 0x0 0x0"] * 5)),
        ),
        "fail",
        "mmio",
        "its VFs have no MMIO space: 256 KiB are not assigned",
    ),
    "a narrow slot": (
        lambda n: n.put_pf("current_link_width", "1"),
        "warn",
        "pcie-link",
        "its PCIe link runs at 16.0 GT/s PCIe x1",
    ),
    "PCIe errors": (
        lambda n: n.put_pf("aer_dev_fatal", "TLP 3\nTOTAL_ERR_FATAL 3"),
        "warn",
        "pcie-errors",
        "3 fatal PCIe errors",
    ),
    "no NUMA node": (lambda n: n.put_pf("numa_node", "-1"), "warn", "numa", "does not say on which NUMA node it is"),
    "the PF is down": (
        _set_netdev("ens1f0", flags="0x1002", operstate="down"),
        "fail",
        "pf-link",
        f"ens1f0 ({PF}): the PF is down: its VFs have no link",
    ),
    "no carrier": (_set_netdev("ens1f0", carrier="0", operstate="down"), "fail", "pf-link", "the PF has no carrier"),
    "the host needs the PF": (
        _both(_remove_vfs, lambda n: (n.netdev("ens1f0") / "upper_br0").symlink_to("../br0")),
        "fail",
        "pf-in-bond",
        "br0 of this host is on top of ens1f0: it is not changed",
    ),
    "a VF with a larger MTU": (
        _set_netdev("ens1f0v1", mtu="9000"),
        "warn",
        "mtu",
        "its MTU is 9000, that of ens1f0 is 1500",
    ),
    "another e-switch mode": (
        _both(_set_netdev("ens1f0", phys_port_name="p0", phys_switch_id="01"), _entry(eSwitchMode="legacy")),
        "warn",
        "e-switch",
        "its e-switch is in switchdev mode, the config wants legacy",
    ),
    "a setting that the driver lacks": (
        _entry(
            vfs=[
                {"range": "0-1", "mac": "keep", "minTxRate": 10},
                {"range": "2-3", "driver": "vfio-pci", "mac": "keep"},
            ]
        ),
        "warn",
        "vf-settings",
        "i40e takes no min_tx_rate of a VF",
    ),
    "no VFs": (_remove_vfs, "fail", "vf-count", f"ens1f0 ({PF}): it has 0 VFs, the config wants 4"),
    "VFs that are not there": (
        lambda n: n.put_pf("sriov_numvfs", "6"),
        "fail",
        "vf-count",
        "the kernel counts 6 VFs, 4 are there",
    ),
    "an unbound VF": (
        _unbind(1),
        "fail",
        "vf-driver",
        f"ens1f0 VF 1 ({VFS[1]}): on no driver, the config wants kernel",
    ),
    "a VF without a netdev": (
        lambda n: (n.pci(VFS[1]) / "net/ens1f0v1").rename(n.root / "elsewhere"),
        "warn",
        "vf-netdev",
        f"ens1f0 VF 1 ({VFS[1]}): it is on iavf and has no netdev here",
    ),
    "two VFs with a MAC": (
        lambda n: (n.root / "sys/netlink.json").write_text(
            json.dumps({"vf_settings": {PF: {str(i): {"mac": "02:00:00:00:aa:00"} for i in range(4)}}})
        ),
        "fail",
        "vf-macs",
        "its admin MAC 02:00:00:00:aa:00 is that of 3 other VFs",
    ),
    "a MAC that spoofchk drops": (
        _set_netdev("ens1f0v0", address="02:00:00:00:bb:00"),
        "warn",
        "vf-macs",
        "what it sends is dropped",
    ),
    "a VF in reset": (
        lambda n: (n.root / "sys/netlink.json").write_text(
            json.dumps({"vf_settings": {PF: {str(i): {"mac": f"02:00:00:00:aa:0{i}"} for i in range(3)}}})
        ),
        "warn",
        "vf-reading",
        f"ens1f0 VF 3 ({VFS[3]}): the kernel leaves it out of its list",
    ),
    "autoprobe is off": (
        lambda n: n.put_pf("sriov_drivers_autoprobe", "0"),
        "warn",
        "leftovers",
        "new VFs get no driver",
    ),
    "an override is left": (
        lambda n: (n.pci(VFS[0]) / "driver_override").write_text("vfio-pci\n"),
        "warn",
        "leftovers",
        f"ens1f0 VF 0 ({VFS[0]}): driver_override is vfio-pci, it is on iavf",
    ),
    "NetworkManager runs": (
        lambda n: n.answer("processes", "NetworkManager 5"),
        "warn",
        "network-manager",
        "no unmanaged-devices keeps it from new VFs",
    ),
    "NetworkManager manages a VF": (
        lambda n: n.put(
            f"run/NetworkManager/devices/{(n.netdev('ens1f0v0') / 'ifindex').read_text().strip()}", "managed=true"
        ),
        "warn",
        "network-manager",
        f"ens1f0 VF 0 ({VFS[0]}): NetworkManager manages ens1f0v0",
    ),
    "networkd configures a VF": (
        lambda n: n.put(
            f"run/systemd/netif/links/{(n.netdev('ens1f0v0') / 'ifindex').read_text().strip()}",
            "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/10-all.network",
        ),
        "warn",
        "networkd",
        "systemd-networkd configures ens1f0v0 by /etc/systemd/network/10-all.network",
    ),
    "systemd makes VFs": (
        _put("etc/systemd/network/10-x.link", "[Match]\nDriver=i40e\n[Link]\nSR-IOVVirtualFunctions=8"),
        "warn",
        "networkd",
        "10-x.link: systemd makes or sets up VFs",
    ),
    "a rule makes VFs": (
        _rules('ATTR{device/sriov_numvfs}="8"'),
        "warn",
        "udev-rules",
        "70-nics.rules: a rule makes VFs by itself",
    ),
    "a rule binds VFs": (
        _rules('RUN+="/bin/sh -c echo vfio-pci > driver_override"'),
        "warn",
        "udev-rules",
        "binds devices to drivers",
    ),
    "a rule renames all": (
        _rules('SUBSYSTEM=="net", DRIVERS=="iavf", NAME="vf0"'),
        "warn",
        "udev-rules",
        "renames interfaces",
    ),
    "a rename is stuck": (
        lambda n: (n.netdev("ens1f0v0").resolve()).rename(n.pci(VFS[0]) / "net/rename7"),
        "warn",
        "names",
        "rename7: udev could not finish renaming it",
    ),
    "the operator's daemon": (
        lambda n: n.answer("processes", "sriov-network-c 5"),
        "fail",
        "other-managers",
        "the daemon of sriov-network-operator runs",
    ),
    "the Go plugin's socket": (
        _put("var/lib/kubelet/plugins_registry/intel.com_net.sock"),
        "fail",
        "other-managers",
        "another device plugin offers intel.com/net",
    ),
    "no CNI plugin": (lambda n: n.remove("opt/cni/bin/sriov"), "fail", "cni-plugin", "/opt/cni/bin/sriov is not there"),
    "another CNI plugin": (
        lambda n: n.answer("cni-plugin", "other"),
        "fail",
        "cni-plugin",
        "another plugin than that of sriovdp",
    ),
    "a CNI plugin without x": (
        lambda n: (n.root / "opt/cni/bin/sriov").chmod(0o644),
        "fail",
        "cni-plugin",
        "cannot be executed: its mode is 644",
    ),
    "a broken network": (
        _put("etc/cni/net.d/00-multus.conf", "{"),
        "fail",
        "cni-networks",
        "00-multus.conf is no valid JSON",
    ),
    "no network": (_remove_networks, "fail", "cni-networks", "/etc/cni/net.d has no network"),
    "no folder of networks": (
        _both(_remove_networks, lambda n: (n.root / "etc/cni/net.d").rmdir()),
        "warn",
        "cni-networks",
        "/etc/cni/net.d is not there",
    ),
    "Multus comes last": (_multus_last, "fail", "cni-networks", "70-multus.conf (Multus) comes after"),
    "no Multus": (
        lambda n: n.remove("etc/cni/net.d/00-multus.conf"),
        "warn",
        "cni-networks",
        "calls sriov, directly or through Multus",
    ),
    "no main plugin": (
        lambda n: n.remove("opt/cni/bin/multus"),
        "fail",
        "cni-networks",
        "its plugin multus is not in /opt/cni/bin",
    ),
    "Multus without a kubeconfig": (
        lambda n: n.remove("etc/cni/net.d/multus.d/multus.kubeconfig"),
        "fail",
        "multus",
        "multus.kubeconfig is not there: Multus fails every pod",
    ),
    "no IPAM plugin": (
        lambda n: n.remove("opt/cni/bin/host-local"),
        "fail",
        "ipam",
        "IPAM plugin host-local is not in",
    ),
    "CDI is off": (
        _both(
            _config(cdi=True),
            _put(
                "etc/containerd/config.toml", 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nenable_cdi = false'
            ),
        ),
        "fail",
        "cdi",
        "enable_cdi is false, and the config wants CDI",
    ),
    "CDI is not on": (
        _both(_config(cdi=True), _put("etc/containerd/config.toml", "version = 2")),
        "warn",
        "cdi",
        "before containerd 2.0 CDI is off",
    ),
    "little memory may be locked": (
        _put("proc/812/limits", "Max locked memory         8388608              8388608              bytes"),
        "warn",
        "memlock",
        "containerd may lock 8192 KiB of memory",
    ),
    "no vfio node": (lambda n: n.remove("dev/vfio/vfio"), "fail", "vfio-nodes", "/dev/vfio/vfio is not there"),
    "no kubelet": (
        lambda n: n.remove("var/lib/kubelet/device-plugins/kubelet.sock"),
        "fail",
        "kubelet",
        "the kubelet does not run",
    ),
    "a pool that is not offered": (
        lambda n: n.remove("var/lib/kubelet/plugins_registry/sriovdp-intel.com_net-0a1b2c3d.sock"),
        "fail",
        "device-plugin",
        "intel.com/net: the agent offers it to no kubelet",
    ),
    "no PodResources": (
        lambda n: n.remove("var/lib/kubelet/pod-resources/kubelet.sock"),
        "fail",
        "pod-resources",
        "VFs of running pods are not known",
    ),
    "a kubelet that does not answer": (
        lambda n: n.answer("pod-resources", "UNAVAILABLE"),
        "fail",
        "pod-resources",
        "kubelet.sock: UNAVAILABLE",
    ),
    "two pods have a VF": (
        _both(lambda n: n.attach(), lambda n: n.answer("pod-resources", "ok", f"{VFS[0]} shop/web-2")),
        "warn",
        "pod-devices",
        "the kubelet gave it to pod shop/web-2, and pod shop/web-1 (net1) has it by the journal",
    ),
    "a gate is off": (
        _put("var/lib/kubelet/config.yaml", yaml.safe_dump(POLICIES | {"featureGates": {"DevicePlugins": False}})),
        "fail",
        "kubelet-policies",
        "feature gate DevicePlugins is off",
    ),
    "a damaged journal": (_damage, "fail", "journal", "attachment-cdcdcd"),
    "an entry of another boot": (
        lambda n: n.attach(boot_id="0"),
        "warn",
        "boot",
        "pod shop/web-1 (net1) has it by the journal",
    ),
    "a release that is owed": (lambda n: n.attach(phase="releasing"), "warn", "boot", "it is releasing since"),
    "no agent": (lambda n: n.remove("run/sriovdp/agent.sock"), "warn", "agent", "the agent does not run"),
    "an agent that cannot": (
        lambda n: n.answer("agent", "no disk"),
        "fail",
        "agent",
        "the agent cannot attach a VF: no disk",
    ),
    "drift": (_entry(mtu=9000), "warn", "drift", f"ens1f0 ({PF}): it is not as the config says"),
}
