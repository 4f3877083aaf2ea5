"""The config file as a whole: what it means, and every fault with its place."""

import contextlib
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.config.faults import MAX_FAULTS
from sriovdp.config.file import load, parse
from sriovdp.config.ranges import VfIndices
from sriovdp.config.terms import PfName
from sriovdp.config.values import Config, PfConfig, PfSelect, Pool, Selector, VfConfig
from sriovdp.errors import ConfigError
from sriovdp.model import NetDevice, PciAddress, PhysicalFunction

EXAMPLES = Path(__file__).parent / "examples"
SAMPLE = Path(__file__).parents[2] / "config" / "sample.yaml"

POOL = "resourceList: [{resourceName: a, selectors: {}}]\n"
PF = "physicalFunctions: [{select: {pfNames: [eth0]}, numVfs: 4}]\n"


def list_faults(text: str) -> list[str]:
    """Faults of a config that has some."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "node.yaml")
    return caught.value.faults


def in_pool(fields: str) -> str:
    """A file with one pool that has these fields besides its name and selectors."""
    return f"resourceList:\n- {{resourceName: a, selectors: {{}}, {fields}}}\n"


def in_selector(fields: str) -> str:
    """A file with one pool whose selector has these fields."""
    return f"resourceList:\n- resourceName: a\n  selectors: {{{fields}}}\n"


def in_vf(fields: str) -> str:
    """A file with one PF of 4 VFs and one range with these fields."""
    return f"physicalFunctions:\n- select: {{pfNames: [eth0]}}\n  numVfs: 4\n  vfs:\n  - {{{fields}}}\n"


def test_the_sample_says_what_the_readme_promises() -> None:
    """The shipped sample splits the PF into 4 kernel, 2 vfio-pci and 1 igb_uio VFs and has a pool for each."""
    config = load(SAMPLE)
    (pf,) = config.physical_functions
    assert pf.select == PfSelect(vendors=("8086",), devices=("10c9",))
    assert pf.num_vfs == 7
    drivers = [pf.vf(index).driver for index in range(7)]
    assert drivers == ["kernel"] * 4 + ["vfio-pci"] * 2 + ["igb_uio"]
    assert [pool.resource for pool in config.pools] == [
        "intel.com/sriov",
        "intel.com/sriov_dpdk",
        "intel.com/sriov_igb_uio",
    ]


def test_the_sample_as_json_is_the_same_config() -> None:
    """YAML and JSON are two spellings of one file."""
    tree = yaml.safe_load(SAMPLE.read_text())
    assert parse(json.dumps(tree, indent="\t"), "sample.json") == load(SAMPLE)


def test_an_upstream_config_map_runs_unchanged() -> None:
    """The JSON people have in the ConfigMap of sriov-network-device-plugin means here what it means there."""
    vf_ids = ("154c", "10ed", "1889")
    assert load(EXAMPLES / "configmap.json") == Config(
        pools=(
            Pool("intel_sriov_netdevice", (Selector(("8086",), vf_ids, ("iavf", "ixgbevf")),)),
            Pool(
                "intel_sriov_dpdk",
                (Selector(("8086",), vf_ids, ("vfio-pci",), (), (PfName("enp0s0f0"), PfName("enp2s2f1"))),),
                exclude_topology=True,
            ),
            Pool("mlnx-sriov", (Selector(("15b3",), ("1018",), ("mlx5_core",)),), prefix="mellanox.com"),
        )
    )


def test_an_upstream_file_that_shares_one_pf_runs_unchanged() -> None:
    """Lists of selectors, several ranges of one PF, nulls and empty text, and the selector that takes everything."""
    kernel, dpdk, rest = load(EXAMPLES / "split_pf.json").pools
    first, second = kernel.selectors
    assert [str(name) for name in first.pf_names] == ["ens1f0#0-3", "ens1f0#8", "ens1f1#0,2-3"]
    assert second == Selector(pci_addresses=(PciAddress("0000:3b:0a.1"),))
    assert dpdk.selectors == (
        Selector((), (), ("vfio-pci", "igb_uio"), (), (PfName("ens1f0", VfIndices.parse("4-7")),)),
    )
    assert rest == Pool("rest", (Selector(),))


def test_physical_functions_have_their_defaults() -> None:
    """A range is on its kernel driver with a stable MAC unless it says else, and so is a VF in no range."""
    text = 'physicalFunctions: [{select: {pciAddresses: ["3B:00.0"]}, numVfs: max, vfs: [{range: 2, mac: keep}]}]'
    only_two = VfIndices.parse("2")
    pf = PfConfig(PfSelect(pci_addresses=(PciAddress("0000:3b:00.0"),)), "max", (VfConfig(only_two, "kernel", "keep"),))
    assert parse(text, "x").physical_functions == (pf,)
    assert pf.vf(2).mac == "keep"
    assert pf.vf(9) == VfConfig(VfIndices.parse("9"), "kernel", "stable")


def test_macs_are_given_as_a_list_or_by_index() -> None:
    """A list goes along the range; a VF that a map leaves out has a stable MAC; upper case is fine."""
    text = (
        in_vf("range: '1,3', mac: [02:00:00:00:00:0A, 02:00:00:00:00:0B]")
        + "  - {range: 0, mac: {0: 02:00:00:00:00:01}}\n"
    )
    (pf,) = parse(text, "x").physical_functions
    assert pf.vf(1).mac == {1: "02:00:00:00:00:0a", 3: "02:00:00:00:00:0b"}
    assert pf.vf(0).mac == {0: "02:00:00:00:00:01"}


def test_the_first_entry_that_selects_a_pf_has_it() -> None:
    """Fields of a select must all hold, values of a field are alternatives, file order decides."""
    by_name = PfConfig(PfSelect(pf_names=("eth0", "eth1"), vendors=("8086",)), 1)
    by_id = PfConfig(PfSelect(devices=("10c9",)), 2)
    config = Config((by_name, by_id))
    nic = NetDevice("eth1", 2, "52:54:00:aa:00:01", 1500, up=True, carrier=True)
    address = PciAddress("0000:01:00.0")
    assert config.find_pf(PhysicalFunction(address, "8086", "10c9", netdev=nic)) == by_name
    assert config.find_pf(PhysicalFunction(address, "15b3", "10c9", netdev=nic)) == by_id
    assert config.find_pf(PhysicalFunction(address, "8086", "10c9")) == by_id
    assert config.find_pf(PhysicalFunction(address, "8086", "1521")) is None
    assert PfSelect(pci_addresses=(address,)).matches(PhysicalFunction(address, "8086", "1521"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1: the file: is empty; give it physicalFunctions"),
        ("[]", "line 1: the file: must be an object, not an empty list"),
        ("{}", "line 1: the file: is empty; give it physicalFunctions"),
        ("resourceLists: []\n" + POOL, "line 1: resourceLists: unknown key; did you mean 'resourceList'?"),
        ("zebra: 1\n" + POOL, "line 1: zebra: unknown key; allowed here: physicalFunctions, resourceList"),
        ("resourceList: {}", "line 1: resourceList: must be a list, not an object"),
        ("resourceList: [{selectors: {}}]", "line 1: resourceList[0].resourceName: must be given"),
        ("resourceList: [{resourceName: a}]", "line 1: resourceList[0].selectors: must be given; to take every VF"),
        ("resourceList: [7]", "line 1: resourceList[0]: must be an object, not 7"),
        ("resourceList: [{resourceName: a, selectors: []}]", "selectors: must have at least one entry"),
        (
            "resourceList: [{resourceName: a, selectors: x}]",
            "selectors: must be an object or a list of objects, not 'x'",
        ),
        ("resourceList: [{resourceName: -a, selectors: {}}]", "resourceName: '-a': a resource name is 1-63"),
        ("resourceList: [{resourceName: a/b, selectors: {}}]", "resourceName: 'a/b': a resource name is 1-63"),
        (f"resourceList: [{{resourceName: {'a' * 64}, selectors: {{}}}}]", "a resource name is 1-63"),
        ("resourceList: [{resourceName: true, selectors: {}}]", "resourceName: must be a text, not true"),
        (
            in_pool("resourcePrefix: Intel.com"),
            "line 2: resourceList[0].resourcePrefix: 'Intel.com': a resource prefix",
        ),
        (in_pool(f"resourcePrefix: {'a.' * 122}a"), "at most 244 characters"),
        (in_pool("resourcePrefix: my.kubernetes.io"), "the kubelet keeps kubernetes.io"),
        (in_pool("deviceType: sf"), "deviceType: 'sf': allowed here: netDevice, accelerator, auxNetDevice"),
        (in_pool("deviceType: netdevice"), "deviceType: 'netdevice': did you mean 'netDevice'?"),
        (in_pool("excludeTopology: yes"), "excludeTopology: must be true or false, not 'yes'"),
        (in_pool("additionalInfo: {a: {b: c}}"), "additionalInfo.a: 'a': no PCI address; write it like 0000:3b:02.6"),
        (in_pool("additionalInfo: {'*': [b]}"), "additionalInfo.'*': must be an object, not a list"),
        (in_pool("additionalInfo: {'*': {b: [c]}}"), "additionalInfo.'*'.b: must be a text, not a list"),
        (in_pool("resourcename: b"), "line 2: resourceList[0].resourcename: this key is here a second time"),
        (in_pool("resourceName: b"), "line 2: resourceList[0].resourceName: this key is here a second time"),
        (in_selector("pfName: [a]"), "line 3: resourceList[0].selectors.pfName: unknown key; did you mean 'pfNames'?"),
        (in_selector("IsRdma: 1"), "line 3: resourceList[0].selectors.isRdma: must be true or false, not 1"),
        (in_pool("deviceNodes: [/tmp/x]"), "deviceNodes[0]: '/tmp/x': a device node is below /dev"),
        (in_pool("deviceNodes: [{hostPath: /dev/a, permissions: rx}]"), "permissions: 'rx': allowed here: some of r"),
        (in_pool("deviceNodes: [{hostPath: /dev/a*, containerPath: /dev/b}]"), "a pattern stands for many nodes"),
        (
            in_pool("deviceNodes: [{hostPath: /dev/a, path: b}]"),
            "deviceNodes[0].path: unknown key; did you mean 'hostPath'?",
        ),
        (in_pool("mounts: [etc]"), "mounts[0]: 'etc': must be an absolute path without .."),
        (in_pool("mounts: [{hostPath: /a/../b}]"), "hostPath: '/a/../b': must be an absolute path without .."),
        (in_pool("env: {PCIDEVICE_X: a}"), "env.PCIDEVICE_X: 'PCIDEVICE_X': PCIDEVICE_* has the container's devices"),
        (in_pool("env: {1A: a}"), "env.1A: '1A': a variable's name is letters"),
        (in_pool('env: {A: "a\\0"}'), "must be a text of at most 4096 printable characters"),
        (in_pool("allocation: pack"), "allocation: 'pack': allowed here: one of packed, spread, samePF, distinctPF"),
        (in_pool("health: [carrier]"), "health[0]: 'carrier': did you mean 'pfCarrier'?"),
        (in_pool("health: [{condition: pfUp, action: warning}]"), "action: 'warning': did you mean 'warn'?"),
        (in_pool("health: [{condition: pfUp, hold: 10s}]"), "hold: '10s': a time in seconds is a whole number from 0"),
        (in_pool("health: [{action: warn}]"), "health[0].condition: must be given"),
        (in_pool("health: [pfUp, {condition: pfUp, hold: 5}]"), "health has two rules for pfUp; leave one of them"),
        (in_pool("health: [{condition: pcieErrors, hold: 0}]"), "hold: 0 forgets pcieErrors at once; give seconds"),
        (in_pool("nodes: {}"), "nodes: needs at least one of names, labels"),
        (in_pool("nodes: {names: [A_b]}"), "nodes.names[0]: 'A_b': must be the name of a Kubernetes node"),
        (in_pool("nodes: {labels: {a b: c}}"), "'a b': must be the key of a label"),
        (in_pool("nodes: {labels: {a: true}}"), "nodes.labels.a: must be a text, not true"),
        (in_selector("vendors: 8086"), "selectors.vendors: must be a list, not 8086"),
        (in_selector("vendors: ['0x8086']"), "selectors.vendors[0]: '0x8086': an id is 4 hex digits"),
        (in_selector("devices: [10CA]"), "'10CA': an id is 4 hex digits in lower case without 0x; write '10ca'"),
        (in_selector("devices: [intel]"), "'intel': an id is 4 hex digits in lower case without 0x, like '8086'"),
        (in_selector("drivers: [kernel]"), "'kernel': write the name of the VF's own kernel driver here"),
        (in_selector("drivers: [vfio_pci]"), "did you mean 'vfio-pci'?"),
        (in_selector("pciAddresses: [0000:3b:02.6, 3b:02]"), "pciAddresses[1]: '3b:02': no PCI address"),
        (in_selector("pfNames: ['a#0-3,x']"), "pfNames[0]: 'a#0-3,x': 'x' is no VF index or range"),
        (in_selector("pfNames: ['a#7-3']"), "the range 7-3 is reversed; write 3-7"),
        (in_selector("pfNames: ['a#']"), "'a#': the range is empty"),
        (in_selector("pfNames: ['a#1#2']"), "'1#2' is no VF index or range"),
        (in_selector("pfNames: ['#1']"), "a netdev name is 1-15 ASCII characters"),
        (in_selector("pfNames: [abcdefghijklmnop]"), "a netdev name is 1-15 ASCII characters"),
        ("physicalFunctions: [{numVfs: 1}]", "physicalFunctions[0].select: must be given"),
        ("physicalFunctions: [{select: {}, numVfs: 1}]", "select: needs at least one of pfNames, pciAddresses"),
        ("physicalFunctions: [{select: {vendors: []}, numVfs: 1}]", "select.vendors: must have at least one entry"),
        ("physicalFunctions: [{select: {pfNames: [a#1]}, numVfs: 1}]", "'a#1': a PF has no range here; write 'a'"),
        ("physicalFunctions: [{select: {pfNames: [a]}}]", "physicalFunctions[0].numVfs: must be given"),
        ("physicalFunctions: [{select: {pfNames: [a]}, numVfs: -1}]", "numVfs: -1: allowed here: a whole number"),
        ("physicalFunctions: [{select: {pfNames: [a]}, numVfs: '7'}]", "numVfs: '7': allowed here: a whole number"),
        ("physicalFunctions: [{select: {pfNames: [a]}, numVfs: true}]", "numVfs: true: allowed here: a whole number"),
        ("physicalFunctions: [{select: {pfNames: [a]}, numVfs: Max}]", "numVfs: 'Max': allowed here: a whole number"),
        (in_vf("driver: vfio-pci"), "vfs[0].range: must be given"),
        (in_vf("range: 0, driver: Kernel"), "did you mean 'kernel'?"),
        (in_vf("range: 0, driver: igb-uio"), "did you mean 'igb_uio'?"),
        (in_vf("range: 0, driver: ../../x"), "driver: '../../x': a driver name is letters"),
        (in_vf("range: 0, driver: ''"), "driver: '': a driver name is letters"),
        (in_vf("range: 0, driver: "), "driver: must be a text, not null"),
        (in_vf("range: 0, mac: random"), "vfs[0].mac: 'random': allowed here: stable"),
        (in_vf("range: 0, mac: 02:00:00:00:00:01"), "a list with a MAC for each VF of the range, or a map of VF index"),
        (in_vf("range: 0-2, mac: [02:00:00:00:00:01]"), "vfs[0]: the range 0-2 has 3 VFs, mac has 1 MAC"),
        (in_vf("range: 0, mac: []"), "the range 0 has 1 VF, mac has 0 MACs"),
        (in_vf("range: 0, mac: [7]"), "7 is not a unicast MAC address like 02:00:00:00:00:01"),
        (in_vf("range: 0, mac: [01:00:5e:00:00:01]"), "'01:00:5e:00:00:01' is not a unicast MAC"),
        (in_vf("range: 0, mac: ['00:00:00:00:00:00']"), "is not a unicast MAC"),
        (in_vf("range: 0-1, mac: [02:00:00:00:0a:01, 02:00:00:00:0A:01]"), "02:00:00:00:0a:01 is here twice"),
        (in_vf("range: 0-1, mac: {2: 02:00:00:00:00:01}"), "mac has a MAC for VF 2, which is not in the range 0-1"),
        (in_vf("range: 0, mac: {x: 02:00:00:00:00:01}"), "'x' is no VF index; the keys of the map are VF indices"),
        (in_vf("range: 0, maxTxRate: 4294967296"), "maxTxRate: 4294967296: a rate in Mbit/s is a whole number from 0"),
        (in_vf("range: 0, minTxRate: 7, maxTxRate: 5"), "vfs[0]: minTxRate 7 is more than maxTxRate 5"),
        (in_vf("range: 0, noiommu: true"), "vfs[0]: noiommu is for vfio-pci; remove it"),
        (in_vf("range: 0, driver: None"), "did you mean 'none'?"),
        (in_selector("drivers: [none]"), "'none': a device without a driver is in no pool"),
        (
            in_vf("range: 0, mac: [02:00:00:00:00:01]}\n  - {range: 1, mac: [02:00:00:00:00:01]"),
            "line 6: physicalFunctions[0].vfs[1].mac: 02:00:00:00:00:01 is also in physicalFunctions[0].vfs[0].mac",
        ),
        (in_vf("range: 0, vlan: 4095"), "vlan: 4095: a VLAN is a whole number from 0 to 4094"),
        (in_vf("range: 0, trust: 'on'"), "trust: must be true or false, not 'on'"),
        (PF.replace("}]", ", mtu: 20}]"), "mtu: 20: an MTU is a whole number from 68 to 65535"),
        (PF.replace("pfNames: [eth0]", "numaNodes: ['0']"), "numaNodes[0]: '0': a NUMA node is a whole number from 0"),
        (PF.replace("pfNames: [eth0]", "rootDevices: [x]"), "select.rootDevices[0]: 'x': no PCI address"),
        (
            PF.replace("}]", ", allowUplink: true}]"),
            "allowUplink: unknown key; did you mean 'allowHostUplink'?",
        ),
        (in_vf("range: 2-4"), "line 5: physicalFunctions[0].vfs[0].range: VF 4 will not exist: numVfs is 4"),
        (PF.replace("4}", "0, vfs: [{range: 0}]}"), "VF 0 will not exist: numVfs is 0"),
        (PF.replace("}]", "}, {select: {pfNames: [eth0]}, numVfs: 1}]"), "physicalFunctions[0] selects the same PFs"),
    ],
)
def test_fault(text: str, fault: str) -> None:
    """Each fault is one sentence: line, path, value, what is allowed or meant."""
    (told,) = list_faults(text)
    assert fault in told


def test_overlapping_ranges_are_reported_with_both_places() -> None:
    """A VF in two ranges would have two drivers: the later entry is named with the VF and the one it overlaps."""
    text = PF.replace("4}", "max, vfs: [{range: '0-3,9'}, {range: '5-7'}, {range: '3-5'}, {range: 9}]}")
    told = [re.findall(r"(?:vfs\[|VF )(\d+)", fault) for fault in list_faults(text)]
    assert told == [["2", "3", "0"], ["1", "5", "2"], ["3", "9", "0"]]
    assert list_faults(text)[0] == (
        "line 1: physicalFunctions[0].vfs[2].range: VF 3 is also in physicalFunctions[0].vfs[0].range; "
        "put each VF into one range"
    )


def test_a_resource_twice_is_a_fault_whatever_else_is_wrong() -> None:
    """The default prefix counts, and a fault in the same entry does not hide the double name."""
    text = """\
resourceList:
- {resourceName: a, selectors: {}}
- {resourceName: a, resourcePrefix: example.org, selectors: {}}
- {resourceName: a, resourcePrefix: intel.com, selector: {}}
"""
    assert list_faults(text) == [
        "line 4: resourceList[2].resourceName: resourceList[0] is intel.com/a already; give this pool another name",
        "line 4: resourceList[2].selectors: must be given; to take every VF of the node write `selectors: {}`",
        "line 4: resourceList[2].selector: unknown key; did you mean 'selectors'?",
    ]


def test_all_faults_come_at_once_in_file_order() -> None:
    """One run lists everything, so that a file is corrected in one go; the head names the file and the number."""
    text = in_vf("range: 7-3, drivr: x") + in_selector("vendors: [x], pfName: [y]") + "zebra: 1\n"
    faults = list_faults(text)
    assert [fault.split(": ")[:2] for fault in faults] == [
        ["line 5", "physicalFunctions[0].vfs[0].range"],
        ["line 5", "physicalFunctions[0].vfs[0].drivr"],
        ["line 8", "resourceList[0].selectors.vendors[0]"],
        ["line 8", "resourceList[0].selectors.pfName"],
        ["line 9", "zebra"],
    ]
    with pytest.raises(ConfigError, match=r"^node\.yaml: 5 faults\n"):
        parse(text, "node.yaml")


def test_very_many_faults_are_counted_not_printed() -> None:
    """A hostile file cannot fill the log."""
    faults = list_faults(in_selector(f"vendors: [{'x,' * 1000}]"))
    assert len(faults) == MAX_FAULTS + 1
    assert faults[-1] == f"and {1000 - MAX_FAULTS} more"


def test_the_number_of_selectors_is_limited() -> None:
    """Each is held against all before it, which a small file could make take minutes."""
    pools = [
        {"resourceName": f"a{n}", "selectors": [{"pfNames": [f"e{n}x{m}"]} for m in range(10)]} for n in range(101)
    ]
    assert list_faults(json.dumps({"resourceList": pools})) == [
        "line 1: the file: has 1010 selectors in all its pools; at most 1000 are allowed"
    ]
    assert len(parse(json.dumps({"resourceList": pools[1:]}), "x").pools) == 100


def test_a_file_that_can_not_be_read_is_a_config_error(tmp_path: Path) -> None:
    """No file, a directory, no text, too much text: all are reported with the path."""
    missing, binary, large = tmp_path / "none.yaml", tmp_path / "binary", tmp_path / "large"
    binary.write_bytes(b"a: 1\nb: \xff")
    large.write_bytes(b"#" * 300_000)
    for path, fault in (
        (missing, "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (binary, "line 2: not UTF-8 text"),
        (large, "larger than 256 KiB"),
    ):
        with pytest.raises(ConfigError, match=str(path)) as caught:
            load(path)
        assert fault in caught.value.faults[0]


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    """Files saved by an editor that marks UTF-8 are read."""
    path = tmp_path / "node.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + POOL.encode())
    assert load(path) == parse(POOL, "x")


WORDS = st.sampled_from(
    [
        *("", "8086", "0-3", "7-3", "max", "kernel", "vfio-pci", "eth0#1", "0000:3b:00.0", "netDevice", "auxNetDevice"),
        *("numa+packed", "*", "/dev/x", "vhost", "sf"),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers(-2, 9000) | WORDS | st.text(max_size=8)
KEYS = [
    *("physicalFunctions", "resourceList", "select", "numVfs", "vfs", "range", "driver", "mac", "resourceName"),
    *("resourcePrefix", "deviceType", "selectors", "vendors", "drivers", "pfNames", "pciAddresses", "isRdma"),
    *("ResourceList", "IsRdma", "Selectors", "rootDevices", "auxTypes", "vdpaType", "additionalInfo", "nodes", "names"),
    *("labels", "deviceNodes", "mounts", "hostPath", "env", "allocation", "health", "mtu", "vlan", "SelectorObj"),
]
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=25,
)


@given(TREES)
def test_any_tree_is_a_config_or_a_config_error(tree: object) -> None:
    """Whatever stands where, nothing but the program's own error comes out, and never without a fault."""
    faults: list[str] = []
    config = None
    try:
        config = parse(json.dumps(tree), "x")
    except ConfigError as error:
        faults = error.faults
    assert bool(faults) == (config is None)


WRITING = st.text(max_size=80) | st.text("{}[]:,-?&*!|>'\"#%@ \n\tab01~", max_size=80)


@given(WRITING)
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    """Alone and as a value in a pool, text of any kind raises nothing but the program's own error."""
    for whole in (text, f"resourceList: [{{resourceName: a, selectors: {{pfNames: [{text}]}}}}]"):
        with contextlib.suppress(ConfigError):
            parse(whole, "x")
