"""A sysfs tree in a folder, with the kernel's reactions that provisioning needs: an igb PF and its VFs.

`Tree.write` stands in for `sriovdp.kernel.sysfs.write_text`, `Netlink` for rtnetlink; `connect` puts both in place.
Addresses of VFs are those of a real 82576: routing id of the PF + 128 + 2 x index.
"""

import errno
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any

import pytest

from sriovdp.errors import KernelError
from sriovdp.kernel import drivers
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Folder, Sysfs, read_int, read_link, read_text
from sriovdp.model import ZERO_MAC, VfSettings
from sriovdp.node import inventory, sources
from sriovdp.provision import change

PF = "0000:01:00.0"
PF_MAC = "52:54:00:aa:00:01"


def vf_address(pf: str, index: int) -> str:
    """PCI address of a VF of an 82576."""
    routing_id = int(pf[5:7], 16) * 256 + 128 + 2 * index
    return f"0000:{routing_id >> 8:02x}:{routing_id >> 3 & 31:02x}.{routing_id & 7}"


@dataclass
class Tree:
    """A sysfs tree. `settings` is what the PF's driver holds of each VF; `log` has all writes, in order.

    `hidden` has VFs that the kernel leaves out of its list for so many looks; with `sets_vfs` False there is no list.
    """

    root: Path
    settings: dict[str, VfSettings] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    sets_vfs: bool = True
    permanent_macs: dict[str, str] = field(default_factory=dict)
    refused_macs: set[int] = field(default_factory=set)  # VF indices of which the PF's driver takes no admin MAC
    fixed_macs: set[str] = field(default_factory=set)  # VFs, by address, whose netdev keeps its MAC
    last_ifindex: int = 1  # that of lo; no number is given twice
    lock: RLock = field(default_factory=RLock, repr=False)  # PFs are changed at the same time

    def __post_init__(self) -> None:
        for name in ("devices", "drivers"):
            (self.root / "bus/pci" / name).mkdir(parents=True)
        (self.root / "class/net").mkdir(parents=True)
        for driver in ("igb", "igbvf", "vfio-pci", "igb_uio"):
            (self.root / "bus/pci/drivers" / driver).mkdir()

    @property
    def sysfs(self) -> Sysfs:
        """The tree as the product reads it."""
        return Sysfs(self.root)

    def pci(self, address: str) -> Path:
        """Folder of a PCI function."""
        return self.root / "devices/pci0000:00" / address

    def add_function(self, address: str, **attributes: str) -> Path:
        """A PCI function; attributes are files. Without any it is an Intel network function."""
        folder = self.pci(address)
        folder.mkdir(parents=True)
        defaults = {"class": "0x020000", "vendor": "0x8086", "device": "0x10c9", "numa_node": "-1"}
        ids = defaults | attributes
        alias = f"pci:v0000{ids['vendor'][2:].upper()}d0000{ids['device'][2:].upper()}sv00sd00bc02sc00i00"
        for name, value in {**ids, "modalias": alias, "driver_override": "(null)"}.items():
            (folder / name).write_text(f"{value}\n")
        (self.root / "bus/pci/devices" / address).symlink_to(f"../../../devices/pci0000:00/{address}")
        return folder

    def add_pf(self, address: str = PF, netdev: str | None = "enp1s0", *, total: int = 7, vfs: int = 0) -> Path:
        """A PF on igb, with VFs that no driver has."""
        folder = self.add_function(
            address,
            sriov_totalvfs=str(total),
            sriov_numvfs="0",
            sriov_drivers_autoprobe="1",
            numa_node="0",
            sriov_vf_device="10ca",
            sriov_offset="128",
            sriov_stride="2",
        )
        self.bind(address, "igb")
        if netdev:
            self.add_netdev(address, netdev, PF_MAC)
            self.permanent_macs[netdev] = PF_MAC
        if vfs:
            self._set_num_vfs(address, vfs, autoprobe=False)
        return folder

    def add_vf(self, pf: str, index: int) -> str:
        """A VF in an IOMMU group of its own, as the kernel makes it."""
        address = vf_address(pf, index)
        folder = self.add_function(address, device="0x10ca", numa_node="0")
        group = self.root / f"kernel/iommu_groups/{10 + index}"
        group.mkdir(parents=True, exist_ok=True)
        (folder / "iommu_group").symlink_to(group)
        (folder / "physfn").symlink_to(f"../{pf}")
        (self.pci(pf) / f"virtfn{index}").symlink_to(f"../{address}")
        self.settings[address] = VfSettings(ZERO_MAC, spoofchk=True, trust=False)
        return address

    def add_netdev(self, address: str, name: str, mac: str, *, up: bool = True) -> Path:
        """A netdev of a function. Its ifindex is the next one, from 2."""
        folder = self.pci(address) / "net" / name
        folder.mkdir(parents=True)
        self.last_ifindex += 1
        attributes = {
            "address": mac,
            "mtu": "1500",
            "ifindex": str(self.last_ifindex),
            "type": "1",
            "flags": "0x1003" if up else "0x1002",
        }
        attributes |= {"operstate": "up", "carrier": "1"} if up else {"operstate": "down"}
        for key, value in attributes.items():
            (folder / key).write_text(f"{value}\n")
        (self.root / "class/net" / name).symlink_to(folder)
        return folder

    def remove(self, address: str) -> None:
        """A function goes, with its driver and netdev."""
        self.unbind(address)
        (self.root / "bus/pci/devices" / address).unlink()
        shutil.rmtree(self.pci(address))
        self.settings.pop(address, None)

    def bind(self, address: str, driver: str) -> None:
        """Bind a function; igbvf makes a netdev with the admin MAC, igb_uio a UIO device."""
        folder = self.pci(address)
        (folder / "driver").symlink_to(self.root / "bus/pci/drivers" / driver)
        if driver == "igbvf":
            mac = self.settings[address].mac
            name = f"v{address[5:7]}{address[8:10]}f{address[-1]}"
            self.add_netdev(address, name, "02:00:00:00:00:99" if mac == ZERO_MAC else mac, up=False)
        if driver == "igb_uio":
            (folder / "uio" / f"uio{address[-1]}").mkdir(parents=True)

    def unbind(self, address: str) -> None:
        """Take a function's driver away, and what the driver made."""
        folder = self.pci(address)
        for netdev in (folder / "net").glob("*"):
            (self.root / "class/net" / netdev.name).unlink()
        for made in ("net", "uio"):
            shutil.rmtree(folder / made, ignore_errors=True)
        (folder / "driver").unlink(missing_ok=True)

    def write(self, path: Path, text: str) -> None:
        """Write an attribute and react as the kernel does. Raises KernelError where the kernel refuses."""
        with self.lock:
            self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        self.log.append((path.name, text))
        address = path.parent.name
        match path.name:
            case "sriov_numvfs":
                autoprobe = read_int(path.parent / "sriov_drivers_autoprobe") == 1
                self._set_num_vfs(address, int(text), autoprobe=autoprobe)
            case "unbind":
                self.unbind(text)
            case "drivers_probe":
                self._probe(text)
            case _:
                path.write_text(text)

    def _set_num_vfs(self, pf: str, count: int, *, autoprobe: bool) -> None:
        attribute = self.pci(pf) / "sriov_numvfs"
        current = read_int(attribute) or 0
        if current and count:
            raise KernelError(f"writing {count} to {attribute} failed", errno=errno.EBUSY)
        for index in range(current):
            link = self.pci(pf) / f"virtfn{index}"
            self.remove(link.readlink().name)
            link.unlink()
        for index in range(count):
            address = self.add_vf(pf, index)
            if autoprobe:
                self.bind(address, "igbvf")
        attribute.write_text(f"{count}\n")

    def _probe(self, address: str) -> None:
        folder = self.pci(address)
        override = (read_text(folder / "driver_override") or "").removeprefix("(null)")
        autoprobe = read_int(folder / "physfn" / "sriov_drivers_autoprobe") == 1
        driver = override or ("igbvf" if autoprobe else "")
        if driver and read_link(folder / "driver") is None:
            self.bind(address, driver)


@dataclass
class Netlink(AbstractContextManager["Netlink"]):
    """What provisioning asks of rtnetlink, answered from a tree."""

    tree: Tree

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def links(self) -> list[Link]:
        """All netdevs of the tree."""
        with self.tree.lock:
            found = [self.find(entry.name) for entry in (self.tree.root / "class/net").iterdir()]
        return [device for device in found if device]

    def find(self, name: str | int) -> Link | None:
        """A netdev by its name or index."""
        if isinstance(name, int):
            return next((link for link in self.links() if link.ifindex == name), None)
        folder = Folder(str(self.tree.root / "class/net" / name))
        found = sources.read_netdev(folder)
        if found is None:
            return None
        link = Link(found.ifindex, found.name, found.mac, found.mtu, int(found.up), found.carrier, (), "")
        return replace(
            link,
            permanent_mac=self.tree.permanent_macs.get(name, ""),
            hardware=folder.number("type") or 1,
            master=int(any(entry.startswith("upper_") for entry in folder.names)),
        )

    def addresses(self, ifindex: int) -> tuple[str, ...]:
        """Addresses of a netdev: what a test put into `Tree.addresses` under its name."""
        name = next(device.name for device in self.links() if device.ifindex == ifindex)
        return self.tree.addresses.get(name, ())

    def vf_settings(self, pf_ifindex: int) -> dict[int, VfSettings] | None:
        """Settings of the VFs of the PF with this ifindex."""
        if not self.tree.sets_vfs:
            return None
        places = self._vfs(pf_ifindex).items()
        return {index: self.tree.settings[address] for index, address in places if not self._is_hidden(address)}

    def _is_hidden(self, address: str) -> bool:
        left = self.tree.hidden.get(address, 0)
        self.tree.hidden[address] = left - 1
        return left > 0

    def guids(self, _: int) -> dict[int, tuple[str, str]]:
        """None: these VFs are of Ethernet."""
        return {}

    def set_vf(self, pf_ifindex: int, index: int, changes: Mapping[str, Any]) -> None:
        """Change what the PF's driver holds; as with igb, a bound VF driver does not notice."""
        address = self._vfs(pf_ifindex)[index]
        if not self.tree.sets_vfs or (index in self.tree.refused_macs and "mac" in changes):
            raise KernelError("setting it failed: Operation not supported", errno=errno.EOPNOTSUPP)
        self.tree.log.append((f"vf{index}", ", ".join(f"{name} {value}" for name, value in changes.items())))
        self.tree.settings[address] = replace(self.tree.settings[address], **changes)

    def set_link(
        self, ifindex: int, what: str, *, state: str | None = None, mtu: int | None = None, address: str | None = None
    ) -> None:
        """Set a netdev up (the cable is plugged in) or down, or its MTU or MAC."""
        name = next(device.name for device in self.links() if device.ifindex == ifindex)
        folder = self.tree.root / "class/net" / name
        function = folder.resolve().parents[1].name
        if address and function in self.tree.fixed_macs:
            raise KernelError(f"{what} failed: Operation not permitted", errno=errno.EPERM)
        written = {"mtu": str(mtu)} if mtu else {}
        written |= {"address": address} if address else {}
        if state:
            written |= {"flags": "0x1003" if state == "up" else "0x1002", "operstate": state, "carrier": "1"}
        for attribute, value in written.items():
            (folder / attribute).write_text(value)
        self.tree.log.append((folder.name, state or (f"mac {address}" if address else f"mtu {mtu}")))

    def _vfs(self, pf_ifindex: int) -> dict[int, str]:
        device = next(device for device in self.links() if device.ifindex == pf_ifindex)
        pf = (self.tree.root / "class/net" / device.name).resolve().parents[1]
        return {int(link.name[6:]): link.readlink().name for link in pf.glob("virtfn*")}


def connect(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Let the product take the tree for this machine's /sys: writes, rtnetlink, module names, default routes."""
    for module in (inventory, sources):
        monkeypatch.setattr(module, "LIVE_ROOT", tree.root)
    monkeypatch.setattr(sources, "Netlink", lambda: Netlink(tree))
    monkeypatch.setattr(sources, "list_default_routes", lambda: frozenset({"eth9"}))
    monkeypatch.setattr(sources, "list_ddp_profiles", dict)
    monkeypatch.setattr(change, "Netlink", lambda *_: Netlink(tree))
    monkeypatch.setattr(change, "write_text", tree.write)
    monkeypatch.setattr(drivers, "write_text", tree.write)
    monkeypatch.setattr(drivers, "_find_kernel_driver", lambda *_: "igbvf")
    return tree
