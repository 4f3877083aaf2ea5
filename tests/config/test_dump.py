"""A config written out again, its schema, and the shared file of a cluster."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from setup import reference
from sriovdp.config.dump import to_tree, write_yaml
from sriovdp.config.file import load, parse
from sriovdp.config.nodes import NodeIdentity
from sriovdp.config.ranges import VfIndices
from sriovdp.config.schema import make_schema, write_schema
from sriovdp.config.terms import PfName, Placement, RootDevice
from sriovdp.config.text import read
from sriovdp.config.values import (
    Config,
    ExtraMount,
    ExtraNode,
    HealthRule,
    NodeSelect,
    PfConfig,
    PfSelect,
    Pool,
    Selector,
    VfConfig,
)
from sriovdp.errors import ConfigError
from sriovdp.model import PciAddress

ROOT = Path(__file__).parents[2] / "config"
EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))

POOL = {"resourceList": [{"resourceName": "a", "selectors": {}}]}


def some(*values: object, most: int = 3) -> st.SearchStrategy[tuple[object, ...]]:
    """Some of these, each once."""
    return st.lists(st.sampled_from(values), max_size=most, unique=True).map(tuple)


ADDRESSES = (PciAddress("0000:3b:00.0"), PciAddress("0000:00:01.7"), PciAddress("10000:ff:1f.0"))
IDS = ("8086", "15b3", "0154", "1e10")
RANGES = st.lists(st.integers(0, 40), min_size=1, max_size=4).map(
    lambda numbers: VfIndices.parse(",".join(map(str, numbers)))
)
WORDS = st.text(st.characters(categories=["L", "N", "P", "S"], max_codepoint=0xFFFF), min_size=1, max_size=12)
NODES = st.none() | st.builds(
    NodeSelect,
    st.just(("worker-1", "7.example")),
    st.dictionaries(st.sampled_from(["a", "b.c/d"]), st.sampled_from(["", "1", "true"]), min_size=1).map(
        MappingProxyType
    ),
)
PF_NAMES = st.lists(st.builds(PfName, st.sampled_from(["ens1f0", "1e5"]), st.none() | RANGES), max_size=2).map(tuple)
ROOTS = st.lists(st.builds(RootDevice, st.sampled_from(ADDRESSES), st.none() | RANGES), max_size=2).map(tuple)
SELECTORS = (
    st.builds(
        Selector,
        vendors=some(*IDS),
        devices=some(*IDS),
        drivers=some("iavf", "vfio-pci", "null"),
        pci_addresses=some(*ADDRESSES),
        pf_names=PF_NAMES,
        acpi_indexes=some("1", "010"),
        root_devices=ROOTS,
        link_types=some("ether", "infiniband"),
        ddp_profiles=some("ICE COMMS Package", "GTPv1-C/U IPv4/IPv6 payload"),
        p_keys=some("0xffff", "0x8001"),
        need_vhost_net=st.booleans(),
    )
    | st.builds(Selector, is_rdma=st.booleans(), vendors=some(*IDS))
    | st.builds(Selector, vdpa_type=st.sampled_from(["vhost", "virtio"]))
)
POOLS = st.builds(
    Pool,
    name=st.from_regex(r"[a-z0-9][-a-z0-9_]{0,20}[a-z0-9]", fullmatch=True),
    selectors=st.lists(SELECTORS, min_size=1, max_size=3).map(tuple),
    prefix=st.sampled_from(["intel.com", "1.2"]),
    exclude_topology=st.booleans(),
    additional_info=st.dictionaries(
        st.sampled_from(["*", "0000:3b:00.0"]),
        st.dictionaries(WORDS, WORDS, max_size=2).map(MappingProxyType),
        max_size=2,
    ).map(MappingProxyType),
    allocation=st.builds(Placement, st.booleans(), st.sampled_from(["packed", "spread", "samePF", "distinctPF"])),
    health=some(
        HealthRule("driver"),
        HealthRule("pfCarrier", "warn", 10),
        HealthRule("iommuGroup", "ignore", 0),
        HealthRule("pcieErrors"),
        most=4,
    ),
    device_nodes=some(ExtraNode("/dev/a", "/dev/b", "r"), ExtraNode("/dev/cxi*", None, "rwm")),
    mounts=some(ExtraMount("/a b", "/c", read_only=False), ExtraMount("/a")),
    env=st.dictionaries(st.sampled_from(["A", "B_1"]), WORDS | st.sampled_from(["true", "1.5", "~", "a: b"])).map(
        MappingProxyType
    ),
    nodes=NODES,
)


@st.composite
def vfs(draw: Any) -> VfConfig:
    """One range with anything that can be said of it."""
    indices = draw(RANGES)
    driver = draw(st.sampled_from(["kernel", "vfio-pci", "none"]))
    given = draw(st.lists(st.sampled_from(list(indices)), min_size=1, unique=True))
    macs = MappingProxyType({index: f"02:00:00:00:00:{index:02x}" for index in given})
    return VfConfig(
        indices,
        driver,
        draw(st.sampled_from(["stable", "keep", macs])),
        trust=draw(st.none() | st.booleans()),
        vlan=draw(st.none() | st.integers(0, 4094)),
        min_tx_rate=draw(st.none() | st.integers(0, 10)),
        max_tx_rate=draw(st.none() | st.just(0) | st.integers(10, 2**32 - 1)),
        noiommu=driver == "vfio-pci" and draw(st.booleans()),
    )


PFS = st.builds(
    PfConfig,
    st.builds(
        PfSelect,
        pf_names=st.just(("ens1f0",)),
        vendors=some(*IDS),
        root_devices=some(*ADDRESSES),
        numa_nodes=some(0, 7),
    ),
    st.integers(41, 65535) | st.just("max"),
    st.lists(vfs(), max_size=1).map(tuple),
    st.none() | st.integers(68, 65535),
    st.sampled_from([None, "legacy", "switchdev"]),
    st.booleans(),
    st.booleans(),
    NODES,
)
CONFIGS = st.builds(
    Config,
    st.lists(PFS, max_size=1).map(tuple),
    st.lists(POOLS, min_size=1, max_size=3, unique_by=lambda pool: pool.name).map(tuple),
).flatmap(
    lambda config: st.builds(
        replace, st.just(config), cdi=st.just(False) if any(p.prefix == "1.2" for p in config.pools) else st.booleans()
    )
)


@settings(deadline=None)
@given(CONFIGS)
def test_a_config_survives_being_written(config: Config) -> None:
    """As YAML and as JSON, with every default written out, any config reads as the same again, and fits the schema."""
    assert parse(write_yaml(config), "x") == config
    tree = to_tree(config)
    assert parse(json.dumps(tree), "x") == config
    jsonschema.validate(tree, make_schema())


@pytest.mark.parametrize("path", [ROOT / "sample.yaml", *EXAMPLES], ids=lambda path: path.stem)
def test_shipped_files_survive_being_written(path: Path) -> None:
    """The sample and upstream's files."""
    config = load(path)
    assert parse(write_yaml(config), "x") == config


def test_what_is_written_has_every_default() -> None:
    """The smallest pool and PF show all that holds for them, from the one place of defaults."""
    text = "physicalFunctions: [{select: {pfNames: [a]}, numVfs: 1, vfs: [{range: 0}]}]\n" + json.dumps(POOL)[1:-1]
    tree = yaml.safe_load(write_yaml(parse(text, "x")))
    folders = {"logFolders": ["/var/log"], "stateFolders": ["/var/lib/cni"]}
    switches = dict.fromkeys(("trust", "spoofchkOff", "promisc", "allmulti", "mac", "guid"), True)
    drivers = ["kernel", "vfio-pci", "igb_uio", "uio_pci_generic"]
    assert tree == {
        "cdi": False,
        "cni": {
            "allow": {**switches, "drivers": drivers, "vlans": "0-4094", "sysctls": ["*"]},
            "deviceInfoFolders": ["/var/run/k8s.cni.cncf.io/devinfo/cni"],
            **folders,
            "allocation": "when-known",
        },
        "physicalFunctions": [
            {
                "select": {"pfNames": ["a"]},
                "numVfs": 1,
                "externallyManaged": False,
                "allowHostUplink": False,
                "vfs": [{"range": "0", "driver": "kernel", "mac": "stable", "noiommu": False}],
            }
        ],
        "resourceList": [
            {
                "resourceName": "a",
                "resourcePrefix": "intel.com",
                "deviceType": "netDevice",
                "excludeTopology": False,
                "allocation": "numa+packed",
                "health": [
                    {"condition": "driver", "action": "unhealthy"},
                    {"condition": "deviceNodes", "action": "unhealthy"},
                ],
                "selectors": [{"isRdma": False, "needVhostNet": False}],
            }
        ],
    }


def test_cdi_needs_vendors() -> None:
    """A prefix that CDI cannot have as a vendor is a fault, where it stands, and only with `cdi`."""
    text = 'resourceList: [{resourceName: a, resourcePrefix: "4com.io", selectors: {}}]'
    assert not parse(text, "x").cdi
    assert parse(text.replace("4com", "com") + "\ncdi: true", "x").cdi
    with pytest.raises(ConfigError, match=r"line 1: resourceList\[0\]\.resourcePrefix: begins with a digit"):
        parse(text + "\ncdi: true", "x")


def test_the_schema_file_is_what_the_models_say() -> None:
    """`config/schema.json` and the tables of docs/config.md are generated: `make reference`."""
    assert reference.SCHEMA.read_text() == write_schema()
    assert reference.PAGE.read_text() == reference.fill_tables(reference.PAGE.read_text())
    jsonschema.Draft202012Validator.check_schema(make_schema())


def test_the_schema_describes_every_key() -> None:
    """An editor has something to say about each key, and takes none that there is not."""
    for name, shape in make_schema()["$defs"].items():
        assert shape["additionalProperties"] is False, name
        assert shape["description"], name
        for key, entry in shape["properties"].items():
            assert entry.get("description") or "$ref" in json.dumps(entry), f"{name}.{key}"


@pytest.mark.parametrize("path", [ROOT / "sample.yaml", *EXAMPLES], ids=lambda path: path.stem)
def test_the_schema_takes_what_the_program_takes(path: Path) -> None:
    """Shipped and upstream's files; but keys in another case are marked, as the program warns of them."""
    tree = read(path.read_text(), "x").tree
    if path.stem == "operator_node":
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tree, make_schema())
    else:
        jsonschema.validate(tree, make_schema())


NOTHING = st.sampled_from((None, ""))
ANYTHING = NOTHING | st.sampled_from((True, "x", 0, [], ["8086"], {}))
LENIENT = st.builds(
    lambda pool, selector, whole: whole | {"resourceList": [pool | {"selectors": selector}]},
    st.fixed_dictionaries(
        {"resourceName": st.just("a")},
        optional=dict.fromkeys(("resourcePrefix", "deviceType", "excludeTopology", "env", "nodes"), NOTHING | ANYTHING),
    ),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("vendors", "pfNames", "isRdma", "vdpaType"), ANYTHING)),
    st.fixed_dictionaries({}, optional={"physicalFunctions": NOTHING}),
)


@settings(deadline=None)
@example({"resourceList": [{"resourceName": "a", "resourcePrefix": 0, "selectors": {}}]})
@given(LENIENT)
def test_nothing_is_nothing_for_the_schema_too(tree: dict[str, Any]) -> None:
    """Null and empty text in upstream's objects are as if the key were not there, as in Go; all else is as strict."""
    with contextlib.suppress(ConfigError):
        parse(json.dumps(tree), "x")
        jsonschema.validate(tree, make_schema())
    (pool,) = tree["resourceList"]
    less = {key: value for key, value in pool.items() if value not in (None, "")}
    less["selectors"] = {key: value for key, value in pool["selectors"].items() if value not in (None, "")}
    assert is_valid(tree) == is_valid({"resourceList": [less]})


def is_valid(tree: object) -> bool:
    """Whether the schema takes it."""
    return bool(jsonschema.Draft202012Validator(make_schema()).is_valid(tree))


@pytest.mark.parametrize("nothing", [None, ""])
@pytest.mark.parametrize("key", ["resourceName", "selectors"])
def test_what_must_be_given_can_not_be_nothing(key: str, nothing: str | None) -> None:
    """Neither for the schema nor for the program."""
    tree = {"resourceList": [{"resourceName": "a", "selectors": {}} | {key: nothing}]}
    assert not is_valid(tree)
    with pytest.raises(ConfigError, match="must be given"):
        parse(json.dumps(tree), "x")


@pytest.mark.parametrize(
    "pool",
    [
        {"resourceName": "a b", "selectors": {}},
        {"resourceName": "a"},
        {"resourceName": "a", "selectors": {"pfName": ["x"]}},
        {"resourceName": "a", "selectors": {"pfNames": ["x#0-"]}},
        {"resourceName": "a", "selectors": {}, "deviceType": "nic"},
        {"resourceName": "a", "selectors": {}, "allocation": "numa+numa"},
    ],
)
def test_the_schema_refuses_what_the_program_refuses(pool: dict[str, object]) -> None:
    """An editor marks the usual mistakes."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"resourceList": [pool]}, make_schema())


SHARED = """
physicalFunctions:
  - {select: {pfNames: [ens1f0]}, numVfs: 4, nodes: {names: [red, blue]}}
  - {select: {pfNames: [ens1f0]}, numVfs: 8, nodes: {labels: {nic: fast, zone: "1"}}}
resourceList:
  - {resourceName: a, selectors: {}, nodes: {names: [red]}}
  - {resourceName: a, selectors: {drivers: [iavf]}, nodes: {labels: {nic: fast}}}
  - {resourceName: b, selectors: {}}
"""


def test_one_file_serves_a_cluster(tmp_path: Path) -> None:
    """An entry is for the nodes that it names, and for those that have all its labels; the rest is not there."""
    (tmp_path / "c.yaml").write_text(SHARED)

    def count(name: str, **labels: str) -> tuple[list[object], list[Selector]]:
        config = load(tmp_path / "c.yaml", NodeIdentity(name, labels))
        return [pf.num_vfs for pf in config.physical_functions], [pool.selectors[0] for pool in config.pools]

    iavf = Selector(drivers=("iavf",))
    assert count("red") == ([4], [Selector(), Selector()])
    assert count("green") == ([], [Selector()])
    assert count("green", nic="fast") == ([], [iavf, Selector()])
    assert count("green", nic="fast", zone="1") == ([8], [iavf, Selector()])


def test_two_pools_of_one_name_on_one_node_are_a_fault(tmp_path: Path) -> None:
    """Two selections of nodes may meet on a node: only there it shows."""
    (tmp_path / "c.yaml").write_text(SHARED)
    with pytest.raises(ConfigError, match=r"node red has 2 pools named intel\.com/a"):
        load(tmp_path / "c.yaml", NodeIdentity("red", {"nic": "fast"}))
    with pytest.raises(ConfigError, match=r"resourceList\[0\] is intel.com/b already"):
        parse(SHARED.replace("resourceName: a", "resourceName: b"), "x")


def test_labels_that_nobody_told_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not knowing is not the same as not having; the variables of the pod have name and labels."""
    (tmp_path / "c.yaml").write_text(SHARED)
    with pytest.raises(ConfigError, match="the labels of node blue are not known; give them with --node-label"):
        load(tmp_path / "c.yaml", NodeIdentity("blue"))
    monkeypatch.setenv("NODE_NAME", "blue")
    monkeypatch.setenv("NODE_LABELS", "zone=1,other=")
    assert NodeIdentity.find() == NodeIdentity("blue", {"zone": "1", "other": ""})
    assert len(load(tmp_path / "c.yaml").physical_functions) == 1


@pytest.mark.parametrize(
    ("first", "second", "shadowed"),
    [
        ("{}", "{}", True),
        ("{}", "{drivers: [iavf]}", True),
        ("{drivers: [iavf]}", "{}", False),
        ("{drivers: [iavf, vfio-pci]}", "{drivers: [iavf], vendors: ['8086']}", True),
        ("{drivers: [iavf]}", "{drivers: [iavf, vfio-pci]}", False),
        ("{pfNames: [a]}", "{pfNames: ['a#1']}", True),
        ("{pfNames: ['a#0-3']}", "{pfNames: ['a#1-2']}", True),
        ("{pfNames: ['a#0-3']}", "{pfNames: ['a#1-4']}", False),
        ("{pfNames: ['a#0-3']}", "{pfNames: [b]}", False),
        ("{rootDevices: ['0000:01:00.0']}", "{rootDevices: ['0000:01:00.0#1']}", True),
        ("{isRdma: true}", "{}", False),
        ("{}", "{isRdma: true}", True),
        ("{vdpaType: vhost}", "{vdpaType: virtio}", False),
        ("[{drivers: [a]}, {drivers: [b]}]", "[{drivers: [b]}, {drivers: [a], vendors: ['8086']}]", True),
        ("[{drivers: [a]}, {drivers: [b]}]", "[{drivers: [b]}, {drivers: [c]}]", False),
    ],
)
def test_a_pool_that_can_get_nothing_is_reported(first: str, second: str, shadowed: bool) -> None:
    """An earlier pool that takes all that a later one selects is named, whatever the node."""
    text = f"resourceList:\n- {{resourceName: a, selectors: {first}}}\n- {{resourceName: b, selectors: {second}}}\n"
    told = "line 3: resourceList[1]: gets no device: resourceList[0] takes all that it selects; put it before that"
    assert parse(text, "x").warnings == ((told,) if shadowed else ())
