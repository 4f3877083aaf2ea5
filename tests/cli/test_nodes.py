"""Commands on recorded nodes: explain, validate against a node, schema, record."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sriovdp.cli.main import cli
from tests.recordings.nodes import NAMES, build

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The recorded nodes, but for the large one."""
    folder = tmp_path_factory.mktemp("nodes")
    return {name: build(name, folder / name) for name in NAMES if name != "large"}


def write_config(folder: Path, text: str) -> Path:
    """A config file."""
    path = folder / "c.yaml"
    path.write_text(text)
    return path


POOLS = """
resourceList:
- {resourceName: dpdk, selectors: [{drivers: [uio_pci_generic]}, {drivers: [vfio-pci], pfNames: ["ens1f0#0-3"]}]}
- {resourceName: net, selectors: {devices: ["1572"], drivers: [iavf]}}
"""


def test_explain_reports_pool_or_reasons(nodes: dict[str, Path], tmp_path: Path) -> None:
    """Which pool and selector took a VF; else the first field that did not hold, for each pool and selector."""
    config = write_config(tmp_path, POOLS)
    arguments = ("explain", "--config", config, "--sysfs", nodes["x710"])
    shown = run(*arguments, "3b:02.2", "0000:3b:02.0", "0000:3b:02.6", "0000:3b:00.0")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == [
        "0000:3b:02.2  VF 2 of ens1f0  8086:154c  vfio-pci  -> intel.com/dpdk, selectors[1]",
        "0000:3b:02.0  VF 0 of ens1f0  ens1f0v0  8086:154c  iavf  -> not advertised",
        "    intel.com/dpdk selectors[0]: drivers wants uio_pci_generic, the device has iavf",
        "    intel.com/dpdk selectors[1]: drivers wants vfio-pci, the device has iavf",
        "    intel.com/net: devices wants 1572, the device has 154c (1572 is the id of the PF)",
        "0000:3b:02.6  VF 6 of ens1f0  8086:154c  no driver  -> not advertised",
        "    it has no driver",
        "0000:3b:00.0  ens1f0  8086:1572  i40e  -> not advertised",
        "    it is split into 7 VFs, which are offered in its place",
    ]


def test_explain_as_json_has_the_same(nodes: dict[str, Path], tmp_path: Path) -> None:
    """An object for each device, with stable keys."""
    config = write_config(tmp_path, POOLS)
    arguments = ("explain", "--json", "--config", config, "--sysfs", nodes["x710"])
    told = {verdict["id"]: verdict for verdict in json.loads(run(*arguments).stdout)}
    assert len(told) == 9
    rejections = [
        _reject("dpdk", 0, "drivers", ["uio_pci_generic"], "vfio-pci"),
        _reject("dpdk", 1, "pfNames", ["ens1f0#0-3"], "ens1f0#4"),
        _reject("net", 0, "devices", ["1572"], "154c", "1572 is the id of the PF"),
    ]
    what: dict[str, object] = {
        "id": "0000:3b:02.4",
        "kind": "VF",
        "deviceType": "netDevice",
        "pf": "0000:3b:00.0",
        "pfName": "ens1f0",
    }
    what |= {"index": 4, "vendor": "8086", "device": "154c", "driver": "vfio-pci", "netdev": None}
    nothing = dict.fromkeys(("resource", "obstacle", "matches", "selector"))
    assert told["0000:3b:02.4"] == what | nothing | {"health": [], "rejections": rejections}
    taken = told["0000:3b:02.3"]
    assert (taken["resource"], taken["matches"], taken["selector"]) == ("intel.com/dpdk", "intel.com/dpdk", 1)


def _reject(name: str, selector: int, field: str, wanted: list[str], actual: str, note: str | None = None) -> object:
    place = {"resource": f"intel.com/{name}", "selector": selector, "field": field}
    return {**place, "wanted": wanted, "actual": actual, "note": note}


def test_discover_shows_what_a_smart_nic_has(nodes: dict[str, Path]) -> None:
    """Switchdev mode, representors, subfunctions, GUIDs, RDMA and vDPA devices, for people and for programs."""
    text = run("discover", "--sysfs", nodes["connectx"]).stdout
    lines = {line.split()[0]: line.split() for line in text.splitlines() if ":" in line.partition(" ")[0]}
    assert lines["0000:3b:00.1"][:6] == ["0000:3b:00.1", "ens1f1np1", "up", "-", "switchdev", "4/8"]
    assert lines["0000:5e:00.0"][3] == "infiniband"
    assert "08:c0:02:00:00:00:00:0d" in lines["0000:5e:00.0"]
    assert "\n2   0000:3b:01.4  mlx5_core  9      0     -         ens1f1npf0vf2  vdpa0 (vhost)\n" in text
    assert "\nSubfunctions of ens1f1np1 (0000:3b:00.1)\nSF  name " in text
    assert "\n88  mlx5_core.sf.4  mlx5_core.sf  0     ens1f1s88\n" in text
    assert text.count("08:c0:eb:03:00:00:00:01") == 2
    pfs = json.loads(run("discover", "--json", "--sysfs", nodes["connectx"]).stdout)
    assert [pf["switchdev"] for pf in pfs] == [False, True, False]
    assert pfs[1]["vfs"][2]["vdpa"] == [{"name": "vdpa0", "kind": "vhost", "node": "/dev/vhost-vdpa-0"}]
    assert (pfs[0]["rdma"], pfs[2]["port_guid"]) == (["mlx5_0"], "08:c0:02:00:00:00:00:0d")
    assert [sf["vdpa"] for sf in pfs[1]["sfs"]] == [[], []]


def test_explain_of_a_device_that_is_not_there_fails(nodes: dict[str, Path], tmp_path: Path) -> None:
    """The address is named, and what to do."""
    config = write_config(tmp_path, POOLS)
    shown = run("explain", "--config", config, "--sysfs", nodes["x710"], "0000:09:00.0")
    assert shown.exit_code == 1
    assert "0000:09:00.0 is not a network function, subfunction or accelerator of this node" in shown.stderr


@pytest.mark.parametrize("command", [("discover",), ("discover", "--json"), ("explain",), ("validate",), ("plan",)])
def test_read_only_commands_take_a_recorded_node(
    nodes: dict[str, Path], tmp_path: Path, command: tuple[str, ...]
) -> None:
    """All of them, on each recorded node."""
    text = "physicalFunctions: [{select: {numaNodes: [0]}, numVfs: max}]" + POOLS
    more: tuple[str | Path, ...] = () if command[0] == "discover" else ("--config", write_config(tmp_path, text))
    more += ("--state-dir", tmp_path) if command[0] == "plan" else ()
    for root in nodes.values():
        shown = run(*command, *more, "--sysfs", root)
        assert (shown.exit_code, shown.exception) == (0, None), shown.output
        assert shown.stdout


FAULTY = """
physicalFunctions:
- select: {pfNames: [ens1f0]}
  numVfs: 65
  vfs: [{range: "0", driver: vfio-pci}, {range: "1", driver: mlx9_core}]
- {select: {pfNames: [ens1f1]}, numVfs: 64}
resourceList:
- {resourceName: a, selectors: {}}
"""


def test_validate_finds_what_the_node_can_not_do(nodes: dict[str, Path], tmp_path: Path) -> None:
    """More VFs than there can be, and a driver that is not there, each with its place; without a node all is right."""
    config = write_config(tmp_path, FAULTY)
    shown = run("validate", "--config", config, "--sysfs", nodes["x710"])
    assert shown.exit_code == 1
    count, driver = shown.stderr.splitlines()[1:]
    assert count.strip() == (
        "line 4: physicalFunctions[0].numVfs: ens1f0 (0000:3b:00.0) can have at most 64 VFs; "
        "write 64 or max, or raise the limit in the NIC's firmware settings"
    )
    assert driver.strip() == (
        "line 5: physicalFunctions[0].vfs[1].driver: this node has no PCI driver mlx9_core and no module for it; "
        "install the module"
    )
    assert run("validate", "--offline", "--config", config).exit_code == 0


BARE = """
physicalFunctions:
- {select: {pfNames: [ens1f0]}, numVfs: 7, vfs: [{range: 0-6, driver: none}]}
- {select: {devices: ["1572"]}, numVfs: 1, vfs: [{range: 0, mac: ["02:00:00:00:00:01"]}]}
resourceList:
- {resourceName: a, selectors: {pfNames: [ens1f0]}}
"""


def test_a_vf_that_shall_have_no_driver_is_for_no_pool(nodes: dict[str, Path], tmp_path: Path) -> None:
    """It is no driver that is missing, its VFs are not missed in a pool, and a pool of nothing else stays empty."""
    shown = run("validate", "--config", write_config(tmp_path, BARE), "--sysfs", nodes["x710"])
    assert shown.exit_code == 0, shown.stderr
    assert [line.removeprefix("warning: ") for line in shown.stderr.splitlines()] == [
        "line 4: physicalFunctions[1]: ens1f1 (0000:3b:00.1) is split, but no pool takes any of its VFs",
        "line 6: resourceList[0]: intel.com/a stays empty: 0000:3b:02.0 matches, but it has no driver",
    ]


def test_given_macs_are_for_one_pf(nodes: dict[str, Path], tmp_path: Path) -> None:
    """An entry that selects two PFs would give both the same."""
    config = write_config(tmp_path, "\n".join(line for line in BARE.splitlines() if "ens1f0]}, numVfs" not in line))
    shown = run("validate", "--config", config, "--sysfs", nodes["x710"])
    assert shown.exit_code == 1
    assert (
        "line 3: physicalFunctions[0].vfs[0].mac: ens1f0 (0000:3b:00.0) and ens1f1 (0000:3b:00.1) would" in shown.stderr
    )


WARNED = """
physicalFunctions:
- {select: {pfNames: [ens1f0]}, numVfs: 8, vfs: [{range: "6-7", driver: vfio-pci}]}
- {select: {vendors: ["8086"], pfNames: [ens1f0]}, numVfs: 1}
- {select: {pfNames: [zz]}, numVfs: 1}
resourceList:
- {resourceName: wide, selectors: {pfNames: ["ens1f0#0-5"]}}
- {resourceName: late, selectors: {pfNames: ["ens1f0#0-1"], drivers: [iavf]}}
- {resourceName: typo, selectors: {devices: ["154d"]}}
- {resourceName: half, selectors: [{devices: ["154c"], pfNames: ["ens1f0#6"]}, {drivers: [zz], vendors: ["15b3"]}]}
"""


def test_validate_warns_of_what_is_hardly_meant(nodes: dict[str, Path], tmp_path: Path) -> None:
    """Against the node as it will be: VF 7 is yet to come, and is in no pool. Warnings leave the exit code 0."""
    shown = run("validate", "--config", write_config(tmp_path, WARNED), "--sysfs", nodes["x710"])
    assert shown.exit_code == 0
    assert shown.stdout.endswith("is valid: 4 pools, 3 PF entries\n")
    assert [line.removeprefix("warning: ") for line in shown.stderr.splitlines()] == [
        "line 8: resourceList[1]: gets no device: resourceList[0] takes all that it selects; put it before that",
        "line 3: physicalFunctions[0]: ens1f0 (0000:3b:00.0) is split, but no pool takes VF 7",
        "line 4: physicalFunctions[1].select: physicalFunctions[0] has every PF of this node that matches",
        "line 5: physicalFunctions[2].select: no PF of this node matches",
        "line 5: physicalFunctions[2].select.pfNames[0]: this node has no PF zz; it has ens1f0, ens1f1",
        (
            "line 8: resourceList[1]: intel.com/late stays empty: "
            "resourceList[0] takes all devices of this node that match"
        ),
        (
            "line 9: resourceList[2].selectors: no device of this node matches: intel.com/typo stays empty; "
            "`sriovdp explain` shows why for each device"
        ),
        "line 9: resourceList[2].selectors.devices[0]: did you mean 154c?",
        "line 10: resourceList[3].selectors[1]: no device of this node matches",
    ]


def test_the_sample_fits_the_node_it_is_for(nodes: dict[str, Path]) -> None:
    """Neither fault nor warning, on the lab's igb before and after it is split."""
    for name in ("igb_before", "igb_after"):
        shown = run("validate", "--config", ROOT / "config/sample.yaml", "--sysfs", nodes[name])
        assert (shown.exit_code, shown.stderr) == (0, "")


def test_validate_warns_of_a_pool_of_what_the_host_needs(nodes: dict[str, Path], tmp_path: Path) -> None:
    """A pool that only the host's own ports would be in."""
    config = write_config(tmp_path, "resourceList: [{resourceName: a, selectors: {pciAddresses: ['0000:18:00.1']}}]")
    shown = run("validate", "--config", config, "--sysfs", nodes["bond"])
    assert "intel.com/a stays empty: 0000:18:00.1 matches, but eno2 carries the default route" in shown.stderr


def test_explain_and_validate_name_the_nearest_miss(nodes: dict[str, Path], tmp_path: Path) -> None:
    """The address of a split PF: a warning at the value, and a note beside the rejection, in the JSON as well."""
    text = "resourceList: [{resourceName: a, selectors: {pciAddresses: ['0000:3b:00.0', '0000:3b:02.1']}}]"
    config = write_config(tmp_path, text)
    cure = "0000:3b:00.0 is a PF split into VFs: use rootDevices to select the VFs of ens1f0"
    shown = run("validate", config, "--sysfs", nodes["x710"])
    assert (shown.exit_code, shown.stderr) == (
        0,
        f"warning: line 1: resourceList[0].selectors.pciAddresses[0]: {cure}\n",
    )
    assert f"({cure})" in run("explain", config, "--sysfs", nodes["x710"], "0000:3b:02.0").stdout
    [verdict] = json.loads(run("explain", "--json", config, "--sysfs", nodes["x710"], "0000:3b:02.0").stdout)
    assert verdict["rejections"][0]["note"] == cure


def test_a_function_with_an_address_names_its_cure_which_works(nodes: dict[str, Path], tmp_path: Path) -> None:
    """Validate and explain print the entry that offers it; with that entry the pool has it."""
    pool = "resourceList: [{resourceName: a, selectors: {pciAddresses: ['0000:18:00.1']}}]"
    entry = '{select: {pciAddresses: ["0000:18:00.1"]}, numVfs: 0, allowHostUplink: true}'
    before = write_config(tmp_path, pool)
    for command in ("validate", "explain"):
        assert (
            f"to offer it all the same, add {entry} to physicalFunctions"
            in run(command, before, "--sysfs", nodes["bond"]).output
        )
    after = write_config(tmp_path, f"physicalFunctions: [{entry}]\n{pool}")
    assert run("validate", after, "--sysfs", nodes["bond"]).stderr == ""
    assert "-> intel.com/a" in run("explain", after, "--sysfs", nodes["bond"], "0000:18:00.1").stdout


def test_validate_shows_defaults(tmp_path: Path) -> None:
    """YAML that says all that holds, and that is itself right."""
    config = write_config(tmp_path, "resourceList: [{resourceName: a, selectors: {}}]")
    shown = run("validate", "--offline", "--show-defaults", "--config", config)
    assert "  allocation: numa+packed\n" in shown.stdout
    again = write_config(tmp_path, shown.stdout)
    assert run("validate", "--offline", "--show-defaults", "--config", again).stdout == shown.stdout


def test_node_and_labels_choose_entries(tmp_path: Path) -> None:
    """Options name the node for a file that a cluster shares; a label without = is wrong usage."""
    text = "resourceList: [{resourceName: a, selectors: {}, nodes: {names: [red], labels: {nic: fast}}}]"
    arguments = ("validate", "--offline", "--config", write_config(tmp_path, text))
    assert "1 pool," in run(*arguments, "--node-name", "red", "--node-label", "nic=fast").stdout
    assert "0 pools," in run(*arguments, "--node-name", "blue", "--node-label", "nic=fast").stdout
    assert run(*arguments, "--node-name", "red").exit_code == 1
    assert run(*arguments, "--node-label", "nic").exit_code == 2


def test_schema_prints_the_generated_file() -> None:
    """What editors are given."""
    assert run("schema").stdout == (ROOT / "config/schema.json").read_text()


def test_record_saves_a_node_and_this_machine(nodes: dict[str, Path], tmp_path: Path) -> None:
    """A summary; not over anything that is there."""
    shown = run("record", tmp_path / "new", "--sysfs", nodes["connectx"])
    assert (shown.exit_code, shown.stdout) == (0, f"3 PFs, 0 accelerators and 10 VFs saved in {tmp_path}/new\n")
    assert run("record", tmp_path / "new").exit_code == 1
    assert run("record", tmp_path / "live").exit_code == 0
    assert run("discover", "--json", "--sysfs", tmp_path / "live").exit_code == 0
