"""`sriovdp reset` and the exit codes of `apply`."""

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from sriovdp.cli import apply as apply_command
from sriovdp.cli import reset as reset_command
from sriovdp.cli.allocated import list_allocated
from sriovdp.cli.main import cli
from sriovdp.errors import DeviceError, InUseError
from sriovdp.provision.apply import Outcome
from sriovdp.state.journal import Journal
from tests.fakes.sysfs import PF, Tree, connect, vf_address

CONFIG = "physicalFunctions: [{select: {vendors: ['8086']}, numVfs: 2}]\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Run":
    """Commands that take a tree with one PF for this machine's."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    for module in (apply_command, reset_command):
        monkeypatch.setattr(module, "Sysfs", lambda: tree.sysfs)
    (tmp_path / "c.yaml").write_text(CONFIG)
    return Run(tmp_path, tree)


class Run:
    """Runs a command with the config and the state of one test."""

    def __init__(self, folder: Path, tree: Tree) -> None:
        self.folder, self.tree = folder, tree

    def __call__(self, command: str, *options: str) -> Result:
        """Run a command with the config, where it takes one, and the state."""
        config = ["--config", str(self.folder / "c.yaml")] if command == "apply" else []
        return CliRunner().invoke(cli, [command, *config, "--state-dir", str(self.folder / "state"), *options])


def test_exit_codes_show_what_happened(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 applied and 0 nothing to do when asked for, else 0 for both; 3 refused; 1 failed."""
    assert [run("apply", "--detailed-exitcode").exit_code for _ in range(2)] == [4, 0]
    assert run("reset").exit_code == 0
    assert [run("apply").exit_code for _ in range(2)] == [0, 0]
    for error, code in ((InUseError("pod"), 3), (DeviceError("broken"), 1)):
        monkeypatch.setattr(apply_command, "apply", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        assert run("apply", "--detailed-exitcode").exit_code == code


def test_reset_gives_the_pf_back(run: Run) -> None:
    """The VFs are gone, and it says so."""
    run("apply")
    shown = run("reset")
    assert (shown.exit_code, shown.stdout.splitlines()) == (
        0,
        ["enp1s0: remove its 2 VFs", "done: 1 step"],
    )
    assert (run.tree.pci(PF) / "sriov_numvfs").read_text() == "0\n"


def test_reset_is_refused_while_the_agent_runs(run: Run) -> None:
    """It would give away what reset takes."""
    run("apply")
    with Journal(run.folder / "state/journal").claim():
        shown = run("reset")
    assert (shown.exit_code, "another sriovdp agent has the journal" in shown.stderr) == (3, True)


def test_apply_at_boot_waits_for_its_pfs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PF that never comes is a warning after the time that was given, and the others are done."""
    (run.folder / "c.yaml").write_text(CONFIG.replace("]\n", ", {select: {vendors: ['15b3']}, numVfs: 1}]\n"))
    shown = run("apply", "--boot", "--boot-timeout", "0")
    assert shown.exit_code == 0
    assert "warning: no PF after 0 s for physicalFunctions[1]; going on without" in shown.stdout
    assert "enp1s0: create 2 VFs" in shown.stdout


def test_what_only_a_reboot_gives_is_reported(run: Run) -> None:
    """An IOMMU that is not at work and a PF without SR-IOV are reported; nothing is done about them."""
    (run.tree.root / "class/iommu").mkdir()
    (run.folder / "c.yaml").write_text(CONFIG.replace("2}", "2, vfs: [{range: '0', driver: vfio-pci}]}"))
    shown = run("apply")
    assert shown.exit_code == 1
    assert "needs a reboot: vfio-pci needs an IOMMU and none is at work" in shown.stdout
    (run.tree.pci(PF) / "sriov_totalvfs").write_text("0")
    shown = run("apply")
    assert "needs a reboot: enp1s0 (0000:01:00.0) offers no VFs: switch SR-IOV on" in shown.stdout


def test_pods_that_the_kubelet_names_are_in_the_way(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply, plan and reset ask for them; at boot there is no kubelet to ask."""
    run("apply")
    pods = {vf_address(PF, 1): "pod default/red (container web)"}
    for module in (apply_command, reset_command):
        monkeypatch.setattr(module, "list_allocated", lambda _: pods)
    (run.folder / "c.yaml").write_text(CONFIG.replace("2}", "3}"))
    for command in ("apply", "reset"):
        shown = run(command)
        assert (shown.exit_code, "used by pod default/red (container web)" in shown.stderr) == (3, True)
    assert run("apply", "--boot").exit_code == 0


def test_a_kubelet_that_does_not_answer_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a socket there is nothing to ask; a dead one is reported."""
    assert list_allocated(tmp_path) == {}
    assert capsys.readouterr().err == ""
    (tmp_path / "pod-resources").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "pod-resources/kubelet.sock"))
    assert list_allocated(tmp_path) == {}
    assert "warning: the kubelet does not report which pod has a VF" in capsys.readouterr().err


def test_options_reach_apply(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All or nothing."""
    asked = SimpleNamespace(keywords={})

    def note(*_: object, **keywords: object) -> Outcome:
        asked.keywords = keywords
        return Outcome()

    monkeypatch.setattr(apply_command, "apply", note)
    run("apply", "--all-or-nothing")
    assert asked.keywords.pop("allocated")() == {}
    assert asked.keywords == {"all_or_nothing": True}
