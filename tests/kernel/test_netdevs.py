"""Which netdev is a function's own, in the shapes of sysfs that NICs make; and all who ask get the same answer."""

import shutil
from pathlib import Path

import pytest

from cni.verbs.choice import check_pf, list_vfs
from cni.vf.settings import find_netdev as find_vf_netdev
from cni.vf.settings import find_vf
from sriovdp.errors import CniError, DeviceError
from sriovdp.kernel import drivers
from sriovdp.kernel.netdevs import find_function, find_netdev, find_pf_netdev, list_netdevs, list_parents
from sriovdp.kernel.rtnl.link import Link
from sriovdp.model import PciAddress
from tests.fakes.sysfs import PF, Tree, vf_address

MAC = "02:00:00:00:00:01"
PORTS = ("pf0vf0", "pf0sf88", "c1pf0vf1", "c1pf0sf2", "pf0", "c1pf0")
VF = vf_address(PF, 0)


class Client:
    """Finds interfaces by their names, as rtnetlink does."""

    def find(self, name: str) -> Link:
        """As Netlink has it."""
        return Link(7, name, "02:00:00:00:00:07", 1500, 0, None, (), "")

    def find_with_vf(self, name: str, index: int) -> None:
        """As Netlink has it, where the interface is another's by now."""
        raise AssertionError(name, index)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A PF with a VF."""
    tree = Tree(tmp_path)
    tree.add_pf(netdev=None, vfs=1)
    return tree


def add(tree: Tree, address: str, name: str, port: str = "", below: str = "") -> None:
    """A netdev of a function, behind a port of that name, or one device deeper."""
    folder = tree.add_netdev(address, name, MAC)
    (folder / "device").symlink_to(tree.pci(address) / below)
    if port:
        (folder / "phys_port_name").write_text(f"{port}\n")
    if below:
        (tree.pci(address) / below).mkdir()
        (tree.root / "class/net" / name).unlink()
        (tree.pci(address) / "net").rename(tree.pci(address) / below / "net")
        (tree.root / "class/net" / name).symlink_to(tree.pci(address) / below / "net" / name)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(("own", "name"), [("", "eth5"), ("p0", "eth5"), ("p0s1", "eth5")])
def test_a_representor_is_never_the_pfs_own(tree: Tree, port: str, own: str, name: str) -> None:
    """Of a VF, a subfunction, or another host's function; whatever their names are."""
    add(tree, PF, "eth0", port)
    assert find_netdev(tree.sysfs, PF) is None
    assert find_pf_netdev(tree.sysfs, VF) is None
    add(tree, PF, name, own)
    assert find_netdev(tree.sysfs, PF) == find_pf_netdev(tree.sysfs, VF) == name
    assert find_function(tree.sysfs, name) == PF
    assert find_function(tree.sysfs, "eth0") is None
    assert list_vfs(tree.sysfs, name) == {0: VF}
    with pytest.raises(DeviceError, match=r"there is no PF eth0 \(if0\)"):
        list_vfs(tree.sysfs, "eth0")


def test_the_netdev_of_a_virtio_function_is_found_by_all(tree: Tree) -> None:
    """It lies in `virtioN/net`, and rtnetlink names the virtio device as its parent."""
    add(tree, VF, "eth7", below="virtio3")
    assert find_netdev(tree.sysfs, VF) == "eth7"
    assert drivers.wait_for_netdev(tree.sysfs, VF) == "eth7"
    found = find_vf_netdev(tree.sysfs, Client(), PciAddress(VF))  # type: ignore[arg-type]
    assert found
    assert found.name == "eth7"
    assert find_function(tree.sysfs, "eth7") == VF
    assert list_parents(tree.sysfs, VF) == {VF, "virtio3"}
    assert list_parents(tree.sysfs, PF) == {PF}


def test_vf_of_a_virtio_pf_has_a_pf(tree: Tree) -> None:
    """The PF's netdev is one device deeper too."""
    add(tree, PF, "eth8", below="virtio0")
    asked = []

    class Asking(Client):
        def find_with_vf(self, name: str, index: int) -> None:
            asked.append((name, index))

    find_vf(tree.sysfs, Asking(), PciAddress(VF))  # type: ignore[arg-type]
    assert asked == [("eth8", 0)]
    assert list_vfs(tree.sysfs, "eth8") == {0: VF}


def test_pf_is_compared_by_its_own_netdev(tree: Tree) -> None:
    """A representor's name in `if0` is not the PF's."""
    from cni.protocol.keys_2017 import Keys2017

    add(tree, PF, "eth0", "pf0vf0")
    add(tree, PF, "eth5", "p0")
    check_pf(tree.sysfs, PciAddress(VF), Keys2017("eth5"))
    with pytest.raises(CniError, match=f"deviceID {VF} is a VF of eth5, but if0 is eth0"):
        check_pf(tree.sysfs, PciAddress(VF), Keys2017("eth0"))


def test_interfaces_that_are_no_functions(tree: Tree) -> None:
    """A bridge has no device; a subfunction's device is no PCI function."""
    assert find_function(tree.sysfs, "br0") is None
    (tree.pci(PF) / "mlx5_core.sf.2/net/eth9").mkdir(parents=True)
    (tree.pci(PF) / "mlx5_core.sf.2/net/eth9/device").symlink_to("../../../mlx5_core.sf.2")
    (tree.root / "class/net/eth9").symlink_to(tree.pci(PF) / "mlx5_core.sf.2/net/eth9")
    assert find_function(tree.sysfs, "eth9") is None


def test_of_two_netdevs_that_of_the_first_port_is_the_own(tree: Tree) -> None:
    """Whatever their names are; with its number it is not mistaken for the other one, which stays here."""
    add(tree, VF, "eth8")
    add(tree, VF, "eth9")
    for name, number in (("eth8", "1"), ("eth9", "0")):
        (tree.pci(VF) / "net" / name / "dev_port").write_text(f"{number}\n")
    assert find_netdev(tree.sysfs, VF) == find_netdev(tree.sysfs, VF, 0) == "eth9"
    assert list_netdevs(tree.sysfs, VF) == {0: "eth9", 1: "eth8"}
    assert find_function(tree.sysfs, "eth8") is None
    shutil.rmtree(tree.pci(VF) / "net/eth9")
    assert find_netdev(tree.sysfs, VF, 0) is None
    assert drivers.wait_for_netdev(tree.sysfs, VF, 1) == "eth8"


def test_a_vf_in_a_virtual_machine_is_found_without_its_pf(tree: Tree) -> None:
    """A PF is none, and neither is another kind of device."""
    tree.add_function("0000:05:00.0", vendor="0x1af4", device="0x1041")
    tree.add_function("0000:06:00.0", **{"class": "0x010000"})
    add(tree, "0000:05:00.0", "eth4", below="virtio0")
    found = find_vf(tree.sysfs, Client(), PciAddress("0000:05:00.0"))  # type: ignore[arg-type]
    assert (str(found), found.index, found.settings) == ("eth4 (0000:05:00.0)", None, None)
    for address in (PF, "0000:06:00.0"):
        with pytest.raises(DeviceError, match="is no VF"):
            find_vf(tree.sysfs, Client(), PciAddress(address))  # type: ignore[arg-type]
