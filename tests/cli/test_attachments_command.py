"""`sriovdp attachments` on a node without VFs, where releasing one is releasing its addresses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sriovdp.cli.main import cli
from sriovdp.state.journal import Attachment, Journal, Original, read_boot_id


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal with one attachment whose sandbox is gone."""
    (tmp_path / "sys").mkdir()
    journal = Journal(tmp_path / "state/journal")
    config = {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": "0000:01:10.2"}
    attachment = Attachment(
        "c1", "net1", "net-a", "0000:01:10.2", "kernel", Original("igbvf", None, "eth1"), "/run/netns/gone", 0, 0,
        read_boot_id(), config, "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web", phase="attached",
    )  # fmt: skip
    journal.write_attachment(attachment)
    return journal


def run(tmp_path: Path, *options: str) -> Result:
    """Run the command."""
    folders = {"state-dir": "state", "sysfs": "sys", "kubelet-dir": "kubelet"}
    paths = [f"--{option}={tmp_path / name}" for option, name in folders.items()]
    return CliRunner().invoke(cli, ["attachments", *paths, *options])


def _unknown(tmp_path: Path) -> str:
    """What is printed where there is no kubelet."""
    socket = tmp_path / "kubelet/pod-resources/kubelet.sock"
    return f"the kubelet does not report which pod has which device: {socket} does not exist\n"


@pytest.mark.usefixtures("journal")
def test_list_names_vf_pod_and_state(tmp_path: Path) -> None:
    """One line for each VF that a pod has."""
    done = run(tmp_path)
    assert done.exit_code == 0
    line = "0000:01:10.2  pod ns/web (net1)  net-a  kernel  attached  sandbox gone\n"
    assert done.output == line + _unknown(tmp_path)


@pytest.mark.usefixtures("journal")
def test_verify_reports_faults_and_ends_with_1(tmp_path: Path) -> None:
    """For scripts: what is not as it should be makes the command fail."""
    done = run(tmp_path, "--verify", "--json")
    assert done.exit_code == 1
    assert "there is no PCI function" in json.loads(done.output)["attachments"][0]["faults"][0]


def test_repair_releases_what_has_no_sandbox(tmp_path: Path, journal: Journal) -> None:
    """Afterwards nothing is left to report."""
    done = run(tmp_path, "--repair")
    assert (done.exit_code, done.output) == (0, "no VF is attached\n" + _unknown(tmp_path))
    assert journal.attachments() == []


@pytest.mark.usefixtures("journal")
def test_damaged_file_is_reported(tmp_path: Path) -> None:
    """And hides nothing else."""
    (tmp_path / "state/journal/attachment-c0-net1.json").write_text("{")
    done = run(tmp_path)
    assert done.exit_code == 1
    assert "pod ns/web (net1)" in done.output
    assert "attachment-c0-net1.json cannot be understood" in done.output
