"""The fake sysfs tree, held against the real one: what it has, the kernel has too, in the same form."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import NetDevice, PhysicalFunction, VirtualFunction
from sriovdp.node.inventory import take_snapshot
from tests.fakes.sysfs import PF, PF_MAC, Tree, connect, vf_address
from tests.lab.node import LabNode

pytestmark = pytest.mark.lab(roots=True)  # where the first PF has the address that the fake gives it

DRIVERS = ("igbvf", "vfio-pci", "igb_uio")
CONFIG = """
physicalFunctions:
  - select: {vendors: ["8086"], devices: ["10c9"]}
    numVfs: 3
    vfs: [{range: "1", driver: vfio-pci}, {range: "2", driver: igb_uio}]
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LabNode]:
    """The lab's node with a VF on each of three drivers."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    node = LabNode(tmp_path / "config.yaml")
    node.apply()
    yield node
    node.remove_vfs()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """The same node as a fake."""
    tree = Tree(tmp_path / "sys")
    tree.add_pf(netdev="eth0", vfs=len(DRIVERS))
    for index, driver in enumerate(DRIVERS):
        tree.bind((tree.pci(PF) / f"virtfn{index}").readlink().name, driver)
    return tree


def _generalize(text: str) -> str:
    """The form of an attribute's content, with all numbers alike."""
    return re.sub(r"(0x)?[0-9a-fA-F]+", lambda found: f"{found[1] or ''}#", text.strip().replace("-1", "0"))


def _describe(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The entries of a function's folder: what each is, and the form of what it says. NAME stands for the netdev."""
    netdev = next((path.name for path in (folder / "net").glob("*")), "")
    described = {}
    for name in names:
        path = folder / name.replace("NAME", netdev)
        if path.is_symlink():
            described[name] = "link"
        elif path.is_dir():
            described[name] = "folder"
        elif path.exists():
            described[name] = f"file {_generalize(path.read_text())}"
    return described


def _list_names(folder: Path) -> set[str]:
    """All entries of a function's folder, and of its netdev's."""
    paths = [path.relative_to(folder) for path in (*folder.iterdir(), *folder.glob("net/*/*"))]
    return {re.sub(r"^net/[^/]+", "net/NAME", str(path)) for path in paths} - {"modalias"}  # has no subsystem ids


@pytest.mark.usefixtures("node")
def test_the_fake_has_nothing_that_the_kernel_has_not(tree: Tree) -> None:
    """Each file, folder and link of the fake's PF and VFs is in the real sysfs too, and reads alike."""
    for address in (PF, *(vf_address(PF, index) for index in range(len(DRIVERS)))):
        names = _list_names(tree.pci(address))
        assert _describe(Path("/sys/bus/pci/devices") / address, names) == _describe(tree.pci(address), names), address


def test_both_read_the_same(node: LabNode, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of the fake is one of the real node, but for what every machine numbers again."""
    connect(tree, monkeypatch)
    fake = take_snapshot(tree.sysfs).pfs[0]
    monkeypatch.undo()
    real = next(pf for pf in take_snapshot(Sysfs()).pfs if pf.address == PF)
    assert real.netdev
    assert (real.netdev.name, real.netdev.mac) == (node.pf_netdev, PF_MAC)
    assert _plain(real) == _plain(fake)


def _plain(pf: PhysicalFunction) -> PhysicalFunction:
    return replace(
        pf,
        netdev=_plain_netdev(pf.netdev),
        numa_node=None,
        iommu_group=None,
        bridges=(),
        vfs=tuple(map(_plain_vf, pf.vfs)),
    )


def _plain_vf(vf: VirtualFunction) -> VirtualFunction:
    """MACs come from provisioning, which the fake did without."""
    netdev = _plain_netdev(vf.netdev)
    return replace(
        vf,
        netdev=replace(netdev, permanent_mac="") if netdev else None,
        numa_node=None,
        iommu_group=0 if vf.iommu_group else None,
        uio="uio0" if vf.uio else None,
        settings=replace(vf.settings, mac="", link_state=None) if vf.settings else None,
    )


def _plain_netdev(netdev: NetDevice | None) -> NetDevice | None:
    return replace(netdev, name="", ifindex=0, mac="") if netdev else None
