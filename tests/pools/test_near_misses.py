"""What a value that names no device of a node likely means."""

from dataclasses import replace

import pytest

from sriovdp.config.file import parse
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import Node
from sriovdp.node.inventory import take_snapshot
from sriovdp.pools.near_misses import NearMisses
from tests.recordings.nodes import build


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Node]:
    """Recorded nodes, read once."""
    folder = tmp_path_factory.mktemp("nodes")
    names = ("x710", "connectx", "accelerator", "guest")
    return {name: take_snapshot(Sysfs(build(name, folder / name))) for name in names}


@pytest.mark.parametrize(
    ("name", "selectors", "sentence"),
    [
        ("x710", "pciAddresses: ['0000:3b:00.0']",
         "0000:3b:00.0 is a PF split into VFs: use rootDevices to select the VFs of ens1f0"),
        ("x710", "pciAddresses: ['0001:3b:02.1']", "did you mean 0000:3b:02.1?"),
        ("x710", "pfNames: [ens1f0v1]", "ens1f0v1 is VF 1 of ens1f0: use ens1f0#1"),
        ("x710", "pfNames: ['ens1*']", "* is not expanded; write the names of the PFs: ens1f0, ens1f1"),
        ("x710", "pfNames: ['ENS1F0#0-3']", "did you mean ens1f0? Upper and lower case differ"),
        ("x710", "pfNames: ['ens1f0#8-9']", "ens1f0 has only VF 0-6"),
        ("x710", "pfNames: [ens1f1]",
         ("ens1f1 has no VFs: the PF itself is taken, as by sriov-network-device-plugin before v3.5; "
          "later versions take only VFs by pfNames")),
        ("x710", "pfNames: ['ens1f1#0']",
         ("ens1f1 has no VFs (it can have 64); create them with an entry in physicalFunctions, "
         "or select ens1f1 itself with pciAddresses")),
        ("x710", "pfNames: [eth0]", "this node has no PF eth0; it has ens1f0, ens1f1"),
        ("x710", "pfNames: [ens1f2]", "did you mean ens1f"),
        ("x710", "rootDevices: ['0000:3b:02.1']",
         "0000:3b:02.1 is VF 1 of ens1f0: use 0000:3b:00.0#1, or pciAddresses"),
        ("x710", "rootDevices: ['0000:3a:00.0']",
         ("0000:3a:00.0 is a PCI bridge: write the address of the PF below it: "
         "ens1f0 (0000:3b:00.0), ens1f1 (0000:3b:00.1)")),
        ("x710", "drivers: [netdevice]",
         ("netdevice is not a driver but a deviceType of sriov-network-operator; "
         "write the driver of the devices: iavf, igb_uio, vfio-pci")),
        ("x710", "drivers: [i40evf]", "did you mean iavf? i40evf is called so since Linux 4.20"),
        ("x710", "drivers: [vfio]", "did you mean vfio-pci?"),
        ("x710", "drivers: [i40e]", "i40e is the driver of PF ens1f0; its VFs have iavf, igb_uio, vfio-pci"),
        ("x710", "devices: ['1572']", "1572 is the id of PF ens1f0; its VFs have 154c"),
        ("x710", "devices: ['154d']", "did you mean 154c?"),
        ("x710", "devices: ['8086']", "8086 is a vendor id: write it under vendors"),
        ("x710", "vendors: ['154c']", "154c is a device id: write it under devices"),
        ("x710", "vendors: ['8068']", "did you mean 8086?"),
        ("connectx", "pfNames: [ens1f1npf0vf2]",
         "ens1f1npf0vf2 is the representor of VF 2 of ens1f1np1: use ens1f1np1#2"),
        ("connectx", "pfNames: [ens1f1s88]", "ens1f1s88 is subfunction 88 of ens1f1np1: use ens1f1np1#88"),
        ("accelerator", "devices: ['0d5d']", "0000:b2:00.0 has this id: write deviceType: accelerator"),
        ("accelerator", "pciAddresses: ['0000:b2:00.1']",
         "0000:b2:00.1 is an accelerator: write deviceType: accelerator"),
        ("guest", "pfNames: ['ens101#0']", "ens101 has no VFs: select it with pciAddresses: 0000:06:00.0"),
    ],
)  # fmt: skip
def test_a_miss_names_the_cure(nodes: dict[str, Node], name: str, selectors: str, sentence: str) -> None:
    """One of each kind, on the node where it happens."""
    config = parse(f"resourceList: [{{resourceName: a, selectors: {{{selectors}}}}}]", "test")
    [pool] = config.pools
    [miss] = NearMisses(nodes[name]).find(pool.selectors[0], pool.device_type)
    assert miss.sentence.startswith(sentence)
    assert (miss.field, miss.number) == (selectors.partition(":")[0], 0)


def test_an_altname_is_no_name_of_a_pf(nodes: dict[str, Node]) -> None:
    """Old names and predictable ones are altnames of each other on many nodes."""
    node = nodes["x710"]
    netdev = node.pfs[0].netdev
    assert netdev
    pfs = (replace(node.pfs[0], netdev=replace(netdev, altnames=("eth4", "enp59s0f0"))), *node.pfs[1:])
    text = "resourceList: [{resourceName: a, selectors: {pfNames: ['eth4#0-3']}}]"
    [pool] = parse(text, "test").pools
    [miss] = NearMisses(replace(node, pfs=pfs)).find(pool.selectors[0], pool.device_type)
    assert miss.sentence == "eth4 is an altname of ens1f0: write ens1f0"


@pytest.mark.parametrize(
    ("selectors", "kind"),
    [
        ("vendors: ['8086'], devices: ['154c'], drivers: [iavf, vfio-pci], pfNames: ['ens1f0#0-3']", "netDevice"),
        ("rootDevices: ['0000:3b:00.0#6'], pciAddresses: ['0000:3b:02.6']", "netDevice"),
        ("pciAddresses: ['0000:09:00.0'], devices: ['ffff']", "netDevice"),
        ("drivers: [zz]", "accelerator"),
    ],
)
def test_what_fits_or_is_far_off_is_no_miss(nodes: dict[str, Node], selectors: str, kind: str) -> None:
    """A file that nodes share names devices of other nodes, too."""
    text = f"resourceList: [{{resourceName: a, deviceType: {kind}, selectors: {{{selectors}}}}}]"
    [pool] = parse(text, "test").pools
    assert list(NearMisses(nodes["x710"]).find(pool.selectors[0], pool.device_type)) == []


@pytest.mark.parametrize(
    ("select", "sentence"),
    [
        ("pfNames: [ens1f0v1]", "ens1f0v1 is VF 1 of ens1f0: use ens1f0"),
        ("pfNames: ['ens1*']", "* is not expanded"),
        ("pfNames: [enp59s0]", "this node has no PF enp59s0; it has ens1f0, ens1f1"),
        ("pciAddresses: ['0000:3b:02.1']", "0000:3b:02.1 is VF 1 of ens1f0: write 0000:3b:00.0"),
        ("rootDevices: ['0000:3b:02.1']", "0000:3b:02.1 is VF 1 of ens1f0: write 0000:3b:00.0"),
        ("devices: ['154c']", "154c is the id of the VFs of ens1f0; the PF has 1572"),
        ("devices: ['8086']", "8086 is a vendor id: write it under vendors"),
    ],
)
def test_a_miss_of_a_pf(nodes: dict[str, Node], select: str, sentence: str) -> None:
    """In the `select` of an entry of physicalFunctions."""
    [entry] = parse(f"physicalFunctions: [{{select: {{{select}}}, numVfs: 1}}]", "test").physical_functions
    [miss] = NearMisses(nodes["x710"]).find_of_pf(entry.select)
    assert miss.sentence.startswith(sentence)
