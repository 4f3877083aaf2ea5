"""Recorded nodes: text files of this folder made into trees for `--sysfs`.

`NAME.txt` is what `sriovdp record` saved on a real node (`python -m tests.recordings.nodes pack DIR` writes it): a line
for each entry, `path = text`, `path -> target` or `path/`. `NAME.yaml` describes a node that we do not have, with the
ids, drivers, offsets and names that it has where it exists; `Builder` makes of it what the kernel would show.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
INFINIBAND = 32  # ARPHRD_INFINIBAND of linux/if_arp.h
NAMES = sorted(path.stem for path in FOLDER.glob("*.*") if path.suffix in {".yaml", ".txt"})


def build(name: str, target: Path) -> Path:
    """Make the tree of a recorded node in a new folder, and give the folder."""
    target.mkdir(parents=True)
    packed = FOLDER / f"{name}.txt"
    if packed.exists():
        unpack(packed.read_text(), target)
    else:
        Builder(target).build(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    return target


def pack(source: Path) -> str:
    """A tree as lines of text."""
    lines = []
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_symlink():
            lines.append(f"{name} -> {path.readlink()}")
        elif path.is_file():
            lines.append(f"{name} = {json.dumps(path.read_text())}")
        elif not any(path.iterdir()):
            lines.append(f"{name}/")
    return "\n".join(lines) + "\n"


def unpack(text: str, target: Path) -> None:
    """The tree of what `pack` wrote."""
    for line in text.splitlines():
        name, arrow, link = line.partition(" -> ")
        path = target / (name if arrow else line.partition(" = ")[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            path.symlink_to(link)
        elif " = " in line:
            path.write_text(json.loads(line.partition(" = ")[2]))
        else:
            path.mkdir(parents=True, exist_ok=True)


class Builder:
    """Makes a tree of a description."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ifindex = 1
        self.group = 0
        self.rdma = 0

    def build(self, node: dict[str, Any]) -> None:
        """All functions, interfaces on top of them, and what netlink reports."""
        for folder in ("bus/pci/devices", "class/net"):
            (self.root / folder).mkdir(parents=True)
        for driver in node.get("drivers", []):
            (self.root / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        for name, uppers in node.get("stack", {}).items():
            self.make_stack(name, uppers)
        for function in node["functions"]:
            for number in range(function.get("copies", 1)):
                self.add_pf(function, number)
        if node.get("netlink"):
            (self.root / "netlink.json").write_text(json.dumps(node["netlink"]))

    def make_stack(self, name: str, uppers: list[str]) -> None:
        """An interface that is none of a PCI function's."""
        (self.root / "class/net" / name).mkdir()
        for upper in uppers:
            (self.root / "class/net" / name / f"upper_{upper}").symlink_to(f"../{upper}")

    def add_pf(self, pf: dict[str, Any], number: int) -> None:
        """A PF with its VFs and subfunctions; `copies` of one go by `{n}` in address, name and port."""
        address = pf["address"].format(n=f"{number:02x}")
        filled = {
            **pf,
            "netdev": _fill(pf.get("netdev"), number),
            "numa": pf.get("numa", -1) if number == 0 else number % 2,
        }
        folder = self.add_function(address, filled, f"devices/pci0000:00/{pf.get('bridge', '0000:00:01.0')}")
        sriov = pf.get("sriov", {})
        for key, attribute in (
            ("total", "totalvfs"),
            ("device", "vf_device"),
            ("offset", "offset"),
            ("stride", "stride"),
        ):
            if key in sriov:
                _write(folder, f"sriov_{attribute}", sriov[key])
        vfs = [vf for group in sriov.get("vfs", []) for vf in [group] * group["count"]]
        if sriov:
            _write(folder, "sriov_numvfs", len(vfs))
            _write(folder, "sriov_drivers_autoprobe", 1)
        for index, vf in enumerate(vfs):
            self.add_vf(folder, address, index, {**vf, "vendor": pf["vendor"], "device": f"0x{sriov['device']}"}, sriov)
        for sf in pf.get("sfs", []):
            self.add_sf(folder, sf)

    def add_vf(self, pf: Path, pf_address: str, index: int, vf: dict[str, Any], sriov: dict[str, Any]) -> None:
        """A VF at the address that offset and stride give it."""
        domain, bus, rest = pf_address.split(":")
        routing = int(bus, 16) * 256 + int(rest[:2], 16) * 8 + int(rest[3]) + sriov["offset"] + index * sriov["stride"]
        address = f"{domain}:{routing >> 8:02x}:{routing >> 3 & 31:02x}.{routing & 7}"
        netdev = _fill(vf.get("netdev"), index)
        numa = (pf / "numa_node").read_text().strip()
        filled = {"class": "0x020000", **vf, "netdev": netdev, "numa": numa}
        folder = self.add_function(address, filled, str(pf.parent.relative_to(self.root)))
        (folder / "physfn").symlink_to(f"../{pf_address}")
        (pf / f"virtfn{index}").symlink_to(f"../{address}")
        if vf.get("representor"):
            port = {"port": f"pf0vf{index}", "switch": "0000000000000001"}
            self.add_netdev(pf, {"name": vf["representor"].format(n=index), **port})

    def add_function(self, address: str, function: dict[str, Any], parent: str) -> Path:
        """A PCI function with its driver, IOMMU group, netdev, RDMA and vDPA devices."""
        folder = self.root / parent / address
        folder.mkdir(parents=True)
        (self.root / "bus/pci/devices" / address).symlink_to(f"../../../{parent}/{address}")
        for name in ("class", "vendor", "device"):
            _write(folder, name, function[name])
        _write(folder, "numa_node", function.get("numa", -1))
        if "acpi_index" in function:
            _write(folder, "acpi_index", function["acpi_index"])
        if function.get("driver"):
            self._bind(folder, "pci", function["driver"])
        if function.get("group", True):
            self.group += 1
            group = self.root / f"kernel/iommu_groups/{self.group}"
            group.mkdir(parents=True)
            if function.get("noiommu"):
                _write(group, "name", "vfio-noiommu")
            (folder / "iommu_group").symlink_to(group.relative_to(self.root))
        if function.get("netdev"):
            self.add_netdev(folder / function["virtio"] if "virtio" in function else folder, function["netdev"])
        if function.get("rdma"):
            self.add_rdma(folder, function["rdma"])
        if function.get("vdpa"):
            self.add_vdpa(folder, function["vdpa"])
        if function.get("uio"):
            (folder / "uio" / function["uio"]).mkdir(parents=True)
        return folder

    def add_netdev(self, folder: Path, netdev: dict[str, Any]) -> None:
        """A netdev, up by default; `upper` is stacked on it."""
        self.ifindex += 1
        path = folder / "net" / netdev["name"]
        path.mkdir(parents=True)
        up = netdev.get("up", True)
        mac = f"02:00:00:00:{self.ifindex >> 8:02x}:{self.ifindex & 255:02x}"
        if netdev.get("type") == INFINIBAND:  # flags and queue pair, subnet prefix, GUID (RFC 4391, section 9.1.1)
            mac = f"00:00:00:48:fe:80:00:00:00:00:00:00:08:c0:{mac}"
        attributes = {"ifindex": self.ifindex, "address": mac, "mtu": 1500, "type": netdev.get("type", 1)}
        attributes |= {"flags": "0x1003" if up else "0x1002", "operstate": "up" if up else "down"}
        for name, value in attributes.items():
            _write(path, name, value)
        for key, attribute in (("port", "phys_port_name"), ("switch", "phys_switch_id")):
            if key in netdev:
                _write(path, attribute, netdev[key])
        if up:
            _write(path, "carrier", 1)
        if "upper" in netdev:
            (path / f"upper_{netdev['upper']}").symlink_to(f"../../{netdev['upper']}")
        (self.root / "class/net" / netdev["name"]).symlink_to(Path("../..") / path.relative_to(self.root))

    def add_rdma(self, folder: Path, kind: dict[str, Any]) -> None:
        """An RDMA device with its character devices; `away` has it in another namespace."""
        number, self.rdma = self.rdma, self.rdma + 1
        name = f"{kind['name']}_{number}"
        part = folder / f"{kind['part']}.{number}"
        part.mkdir()
        self._bind(part, "auxiliary", kind["driver"])
        if kind.get("away"):
            return
        for group, node in (("verbs", "uverbs"), ("mad", "umad"), ("mad", "issm")):
            path = folder / f"infiniband_{group}" / f"{node}{number}"
            path.mkdir(parents=True)
            _write(path, "ibdev", name)
        keys = folder / "infiniband" / name / "ports/1/pkeys"
        keys.mkdir(parents=True)
        _write(keys, "0", kind.get("p_key", "0xffff"))
        (self.root / "class/misc/rdma_cm").mkdir(parents=True, exist_ok=True)

    def add_vdpa(self, folder: Path, driver: str) -> None:
        """A vDPA device on a driver of its bus."""
        bus = self.root / "bus/vdpa/devices"
        bus.mkdir(parents=True, exist_ok=True)
        number = len(list(bus.iterdir()))
        path = folder / f"vdpa{number}"
        path.mkdir()
        self._bind(path, "vdpa", driver)
        if driver == "vhost_vdpa":
            (path / f"vhost-vdpa-{number}").mkdir()
        (bus / f"vdpa{number}").symlink_to(Path("../../..") / path.relative_to(self.root))

    def add_sf(self, pf: Path, sf: dict[str, Any]) -> None:
        """A subfunction, an auxiliary device below its PF."""
        path = pf / f"mlx5_core.sf.{sf['id']}"
        path.mkdir()
        _write(path, "sfnum", sf["number"])
        if sf.get("driver"):
            self._bind(path, "auxiliary", sf["driver"])
        if "netdev" in sf:
            self.add_netdev(path, {"name": sf["netdev"]})

    def _bind(self, folder: Path, bus: str, driver: str) -> None:
        (self.root / "bus" / bus / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(f"/bus/{bus}/drivers/{driver}")


def _fill(netdev: dict[str, Any] | None, number: int) -> dict[str, Any] | None:
    return {**netdev, "name": netdev["name"].format(n=number)} if netdev else None


def _write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(f"{value}\n")


if __name__ == "__main__":
    sys.stdout.write(pack(Path(sys.argv[2])))
