"""The command line: output, exit codes, and that help is quick."""

import asyncio
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sriovdp.cli import apply as apply_command
from sriovdp.cli.log import OneLineFormatter
from sriovdp.cli.main import cli
from sriovdp.errors import InUseError
from sriovdp.model import VfSettings
from tests.fakes.kubelet import Admission, Kubelet
from tests.fakes.sysfs import PF, Tree, connect, vf_address

SAMPLE = Path(__file__).parents[2] / "config" / "sample.yaml"


def run(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An 82576 with two VFs: one on igbvf, one on vfio-pci."""
    tree = Tree(tmp_path / "sys")
    tree.add_pf(vfs=2)
    tree.bind(vf_address(PF, 0), "igbvf")
    tree.bind(vf_address(PF, 1), "vfio-pci")
    return tree


def test_help_lists_all_commands_and_imports_none() -> None:
    """Neither PyYAML nor pyroute2 or gRPC is loaded to print help."""
    code = (
        "import sys\nfrom sriovdp.cli.main import cli\n"
        "heavy = {'yaml', 'pyroute2', 'grpc'}\n"
        "try: cli(['--help'])\nfinally: print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.endswith("LOADED []\n")
    for name in ("discover", "validate", "explain", "plan", "apply", "agent", "record", "schema"):
        assert f"\n  {name} " in shown


def test_the_module_can_be_run_and_prints_its_version() -> None:
    """`python -m sriovdp.cli.main` is the command."""
    command = [sys.executable, "-m", "sriovdp.cli.main", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "sriovdp, version 0.1.0\n"


@pytest.mark.parametrize("arguments", [["bogus"], ["discover", "--bogus"], ["plan", "--config"], ["discover", "extra"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    """Unknown commands and options, as everywhere."""
    assert run(*arguments).exit_code == 2


def test_discover_runs_on_this_machine() -> None:
    """Real sysfs and rtnetlink; the JSON is a list of PFs."""
    assert run("discover").exit_code == 0
    assert isinstance(json.loads(run("discover", "--json").stdout), list)


def test_discover_draws_pfs_and_vfs(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything an admin asks for is in the table; a column that no VF has a value for is left out."""
    connect(tree, monkeypatch)
    tree.settings[vf_address(PF, 1)] = VfSettings("02:00:00:00:00:07", vlan=210, spoofchk=True, trust=False)
    lines = run("discover", "--sysfs", tree.root).stdout.splitlines()
    rows = [line.split() for line in lines]
    ids = "8086:10c9 Intel Corporation 82576 Gigabit Network Connection"
    assert rows[1] == [PF, "enp1s0", "up", "2/7", "0", "igb", *ids.split()]
    assert lines[3] == f"VFs of enp1s0 ({PF})"
    assert rows[5][:6] == ["0", "0000:01:10.0", "igbvf", "10", "0", "v0110f0"]
    assert "representor" not in rows[4]
    assert rows[6] == ["1", "0000:01:10.2", "vfio-pci", "11", "0", "-", "02:00:00:00:00:07", "210", "on", "off"]


@pytest.mark.parametrize(("attribute", "value", "link"), [("carrier", "0", "no carrier"), ("flags", "0x1002", "down")])
def test_discover_reports_the_link(tree: Tree, attribute: str, value: str, link: str) -> None:
    """A PF that is down differs from one without a cable."""
    (tree.pci(PF) / "net/enp1s0" / attribute).write_text(value)
    assert json.loads(run("discover", "--json", "--sysfs", tree.root).stdout)[0]["link"] == link
    assert f"  {link}  " in run("discover", "--sysfs", tree.root).stdout


def test_discover_json_has_stable_keys(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs depend on these names; a VF without settings has the same keys."""
    recorded = json.loads(run("discover", "--json", "--sysfs", tree.root).stdout)
    connect(tree, monkeypatch)
    (pf,) = json.loads(run("discover", "--json", "--sysfs", tree.root).stdout)
    assert list(pf) == [
        *("address", "vendor", "device", "vendor_name", "device_name", "driver", "numa_node", "netdev", "link"),
        *("link_type", "port_guid", "rdma", "soft_rdma", "vdpa", "switchdev", "host_use", "total_vfs", "num_vfs"),
        *("vfs", "sfs", "rdma_mode"),
    ]
    vf = pf["vfs"][0]
    assert list(vf) == [
        *("index", "address", "vendor", "device", "vendor_name", "device_name", "driver", "iommu_group", "numa_node"),
        *(
            "netdev",
            "uio",
            "representor",
            "rdma",
            "soft_rdma",
            "vdpa",
            "admin_mac",
            "vlan",
            "qos",
            "vlan_proto",
            "spoofchk",
            "trust",
            "link_state",
        ),
        *("min_tx_rate", "max_tx_rate", "node_guid", "port_guid"),
    ]
    assert list(vf["netdev"]) == ["name", "ifindex", "mac", "mtu", "up", "carrier", "permanent_mac", "altnames"]
    assert (vf["device_name"], vf["admin_mac"]) == ("82576 Virtual Function", "00:00:00:00:00:00")
    assert list(recorded[0]["vfs"][0]) == list(vf)
    assert recorded[0]["vfs"][0]["admin_mac"] is None


def test_discover_on_a_node_without_nic_says_so(tmp_path: Path) -> None:
    """An empty table would look like a fault."""
    shown = run("discover", "--sysfs", tmp_path)
    assert (shown.exit_code, shown.stdout) == (0, "this node has no PCI network function or accelerator\n")


def test_validate_counts_what_is_in_the_sample() -> None:
    """The file that is shipped is right."""
    shown = run("validate", "--offline", "--config", SAMPLE)
    assert (shown.exit_code, shown.stdout) == (0, f"{SAMPLE} is valid: 3 pools, 1 PF entry\n")


def test_validate_reports_all_faults_on_stderr(tmp_path: Path) -> None:
    """Both faults of a file, and exit code 1."""
    (tmp_path / "c.yaml").write_text("resourceLst: []\nphysicalFunctions: 7\n")
    shown = run("validate", "--config", tmp_path / "c.yaml")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr.startswith(f"sriovdp: error: {tmp_path}/c.yaml: 2 faults\n")
    assert run("validate", "--config", tmp_path / "none").exit_code == 1


def test_plan_prints_steps_with_reasons(tree: Tree, tmp_path: Path) -> None:
    """The sample wants 7 VFs, there are 2; nothing is changed."""
    arguments = ("plan", "--config", SAMPLE, "--sysfs", tree.root, "--state-dir", tmp_path)
    shown = run(*arguments)
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 0
    assert lines[0].split("   ")[0] == "enp1s0: remove its 2 VFs and create 7 VFs"
    assert "numVfs is 7, there are 2; disturbs its 2 VFs, and its link" in lines[0]
    assert len([line for line in lines if "bind to" in line]) == 7
    assert (tree.pci(PF) / "sriov_numvfs").read_text() == "2\n"
    document = json.loads(run(*arguments, "--json").stdout)
    assert list(document) == ["steps", "warnings", "obstacles", "blocked", "reboot"]
    first = {"action": "set_num_vfs", "pf": PF, "pf_name": "enp1s0", "current": 2, "wanted": 7}
    disturbs = "its 2 VFs, and its link for some seconds with most NICs"
    assert document["steps"][0] == {**first, "reason": "numVfs is 7, there are 2", "disturbs": disturbs}


def test_plan_names_who_apply_would_disturb(tree: Tree, tmp_path: Path) -> None:
    """A VF whose netdev is elsewhere stands in the way, in the text and in the JSON."""
    (tree.pci(vf_address(PF, 0)) / "net/v0110f0").rename(tree.root / "elsewhere")
    arguments = ("plan", "--config", SAMPLE, "--sysfs", tree.root, "--state-dir", tmp_path)
    shown = run(*arguments)
    assert shown.exit_code == 0
    assert "`apply` would refuse this and leave the PF as it is:" in shown.stdout
    (obstacle,) = json.loads(run(*arguments, "--json").stdout)["obstacles"]
    assert "VF 0 (0000:01:10.0) is used by another network namespace" in obstacle


def test_apply_on_a_node_without_such_a_pf_has_nothing_to_do(tmp_path: Path) -> None:
    """This machine has no PF of vendor ffff: a warning, and exit code 0."""
    (tmp_path / "c.yaml").write_text("physicalFunctions: [{select: {vendors: ['fffe']}, numVfs: 4}]\n")
    shown = run("apply", "--config", tmp_path / "c.yaml", "--state-dir", tmp_path)
    assert shown.exit_code == 0
    assert "no PF of this node matches" in shown.stdout
    assert "nothing to do" in shown.stdout


def test_apply_that_is_refused_is_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is printed on stderr."""

    def refuse(*_: object, **__: object) -> None:
        raise InUseError("refused", hint="remove pod red")

    monkeypatch.setattr(apply_command, "apply", refuse)
    shown = run("apply", "--config", SAMPLE, "--state-dir", tmp_path)
    assert (shown.exit_code, shown.stderr) == (3, "sriovdp: error: refused; remove pod red\n")


def test_a_log_record_is_one_line() -> None:
    """Messages with line breaks and tracebacks stay together."""
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "two\n  faults\x1b[2J", None, None)
    assert OneLineFormatter("%(levelname)s %(message)s").format(record) == "ERROR two | faults\\x1b[2J"


async def test_attachments_reports_what_the_kubelet_gave() -> None:
    """A VF that a pod has without any attachment, as one in DPDK mode without CNI, is listed too."""
    with tempfile.TemporaryDirectory() as name:
        async with Kubelet(Path(name)) as kubelet:
            kubelet.pods()["web"] = Admission({"intel.com/sriov": ["0000:01:10.0"]})
            options = (f"--kubelet-dir={name}", f"--state-dir={name}/state")
            shown = await asyncio.to_thread(run, "attachments", *options)
            listed = await asyncio.to_thread(run, "attachments", "--json", *options)
    owner = "pod default/web (container main)"
    assert shown.output == f"no VF is attached\n0000:01:10.0  {owner}  given by the kubelet as intel.com/sriov\n"
    given = {"resource": "intel.com/sriov", "device": "0000:01:10.0", "owners": [owner]}
    assert json.loads(listed.output)["kubelet"] == {"devices": [given], "problem": None}
