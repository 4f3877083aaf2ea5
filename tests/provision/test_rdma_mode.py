"""`rdmaMode`: the node's own setting, on a kernel that a test makes up; the lab has the real one."""

import errno
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sriovdp.cli.main import cli
from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.errors import ConfigError, InUseError, KernelError, VerifyError
from sriovdp.kernel import rdma_netlink
from sriovdp.provision import rdma_mode
from sriovdp.provision.apply import apply, survey
from sriovdp.provision.drift import find_drift
from sriovdp.provision.reset import reset
from sriovdp.state.journal import Journal
from tests.fakes.sysfs import PF, Tree, connect

EXCLUSIVE = "rdmaMode: exclusive\n"
ONE_VF = "physicalFunctions: [{select: {pfNames: [enp1s0]}, numVfs: 1}]\n"


class Subsystem:
    """The RDMA subsystem of a fake node; `has_pods` makes it refuse, `is_deaf` makes it do nothing."""

    def __init__(self, root: Path) -> None:
        self.file = root / "module/ib_core/parameters/netns_mode"
        self.has_pods = self.is_deaf = False
        self.file.parent.mkdir(parents=True)
        self.file.write_text("Y\n")

    @property
    def mode(self) -> str:
        """As `rdma system show` prints it."""
        return {"Y": "shared", "N": "exclusive"}[self.file.read_text().strip()]

    def set_exclusive(self, *, enabled: bool) -> None:
        """As rdma_netlink has it."""
        if self.has_pods:
            raise KernelError("setting RDMA mode failed", errno=errno.EBUSY)
        if not self.is_deaf:
            self.file.write_text("N\n" if enabled else "Y\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A PF without VFs."""
    tree = connect(Tree(tmp_path / "sys"), monkeypatch)
    tree.add_pf()
    return tree


@pytest.fixture
def rdma(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Subsystem:
    """In shared mode, without pods."""
    subsystem = Subsystem(tree.root)
    monkeypatch.setattr(rdma_netlink, "set_exclusive", subsystem.set_exclusive)
    return subsystem


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty one."""
    return Journal(tmp_path / "journal")


def config(text: str) -> Config:
    """A config file."""
    return parse(text, "test")


def test_mode_is_set_once_and_given_back(tree: Tree, rdma: Subsystem, journal: Journal) -> None:
    """With PFs, after which there is nothing to do; `reset` goes back to the first mode, not to the last."""
    said: list[str] = []
    both = config(EXCLUSIVE + ONE_VF)
    todo, _ = survey(both, tree.sysfs, journal)
    assert (str(todo.mode), todo.mode and todo.mode.reason) == (
        "node: set RDMA mode exclusive",
        "rdmaMode is exclusive, it is shared",
    )
    done = apply(both, tree.sysfs, journal, said.append)
    assert rdma.mode == "exclusive"
    assert "node: set RDMA mode exclusive" in said
    assert done.steps[0] == todo.mode
    assert apply(both, tree.sysfs, journal).steps == ()
    apply(config("rdmaMode: shared"), tree.sysfs, journal)
    apply(config(EXCLUSIVE), tree.sysfs, journal)
    reset(tree.sysfs, journal, only=[PF])
    assert rdma.mode == "exclusive"
    assert str(reset(tree.sysfs, journal).steps[-1]) == "node: set RDMA mode shared"
    assert rdma.mode == "shared"
    assert reset(tree.sysfs, journal).steps == ()


def test_nothing_is_changed_without_the_key(tree: Tree, rdma: Subsystem, journal: Journal) -> None:
    """Not even after it was there: only `reset` goes back."""
    apply(config(EXCLUSIVE), tree.sysfs, journal)
    apply(config(ONE_VF), tree.sysfs, journal)
    assert rdma.mode == "exclusive"


def test_pods_in_the_way(tree: Tree, rdma: Subsystem, journal: Journal) -> None:
    """PFs are done all the same; the refusal, status and log name what to write."""
    rdma.has_pods = True
    both = config(EXCLUSIVE + ONE_VF)
    with pytest.raises(InUseError, match=r"so not with pods.*options ib_core netns_mode=0.*modprobe.d"):
        apply(both, tree.sysfs, journal)
    assert (tree.root / "bus/pci/devices" / PF / "sriov_numvfs").read_text().strip() == "1"
    assert rdma.mode == "shared"
    drift = find_drift(both, tree.sysfs, journal)
    assert (drift.steps, drift.is_possible) == ((), False)
    assert "options ib_core netns_mode=0" in drift.waiting["node"][0]
    with pytest.raises(InUseError):
        apply(both, tree.sysfs, journal, all_or_nothing=True)


def test_nothing_else_is_done_when_all_must(tree: Tree, rdma: Subsystem, journal: Journal) -> None:
    """With `--all-or-nothing`."""
    rdma.has_pods = True
    with pytest.raises(InUseError):
        apply(config(EXCLUSIVE + ONE_VF), tree.sysfs, journal, all_or_nothing=True)
    assert (tree.root / "bus/pci/devices" / PF / "sriov_numvfs").read_text().strip() == "0"


def test_reset_with_pods_leaves_the_mode(tree: Tree, rdma: Subsystem, journal: Journal) -> None:
    """PFs are reset; the mode can be later."""
    apply(config(EXCLUSIVE + ONE_VF), tree.sysfs, journal)
    rdma.has_pods = True
    said: list[str] = []
    assert len(reset(tree.sysfs, journal, said.append).steps) == 1
    assert any(line.startswith("warning: node: ") and "netns_mode=1" in line for line in said)
    rdma.has_pods = False
    reset(tree.sysfs, journal)
    assert rdma.mode == "shared"


def test_original_of_another_boot_means_nothing(
    tree: Tree, rdma: Subsystem, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has its own mode again then, and somebody may have set another one."""
    apply(config(EXCLUSIVE), tree.sysfs, journal)
    monkeypatch.setattr(rdma_mode, "read_boot_id", lambda: "another")
    assert reset(tree.sysfs, journal).steps == ()
    assert rdma.mode == "exclusive"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"original": 7}', '{"boot_id": null, "original": ["shared"]}', "\0"])
def test_damaged_original(tree: Tree, rdma: Subsystem, journal: Journal, text: str) -> None:
    """Nothing is known then, and apply and reset go on."""
    path = journal.directory / "rdma-mode.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert reset(tree.sysfs, journal).steps == ()
    path.write_text(text)
    apply(config(EXCLUSIVE), tree.sysfs, journal)
    reset(tree.sysfs, journal)
    assert rdma.mode == "shared"


def test_original_that_cannot_be_read(tree: Tree, rdma: Subsystem, journal: Journal) -> None:
    """A value of a type that no writer has there."""
    apply(config(EXCLUSIVE), tree.sysfs, journal)
    path = journal.directory / "rdma-mode.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"original": ["shared"]}))
    assert reset(tree.sysfs, journal).steps == ()
    assert rdma.mode == "exclusive"


def test_kernel_that_does_nothing(tree: Tree, rdma: Subsystem, journal: Journal) -> None:
    """Every change is read back; PFs are done all the same."""
    rdma.is_deaf = True
    with pytest.raises(VerifyError, match="RDMA mode is shared although exclusive was set"):
        apply(config(EXCLUSIVE + ONE_VF), tree.sysfs, journal)
    assert (tree.root / "bus/pci/devices" / PF / "sriov_numvfs").read_text().strip() == "1"


def test_node_without_rdma(tree: Tree, journal: Journal) -> None:
    """Nothing to do, and a warning says why."""
    done = apply(config(EXCLUSIVE), tree.sysfs, journal)
    assert done.steps == ()
    assert any("has no RDMA (module ib_core)" in warning for warning in done.warnings)
    assert apply(config("rdmaMode: shared"), tree.sysfs, journal).warnings == ()


def test_commands_show_the_mode(tree: Tree, rdma: Subsystem, tmp_path: Path) -> None:
    """`plan` the step, `discover` the mode."""
    file = tmp_path / "config.yaml"
    file.write_text(EXCLUSIVE)

    def run(*words: str) -> str:
        done = CliRunner().invoke(cli, [*words, "--sysfs", str(tree.root)])
        assert done.exit_code == 0, done.output
        return done.stdout

    plan = ("plan", str(file), "--state-dir", str(tmp_path))
    assert "node: set RDMA mode exclusive   rdmaMode is exclusive, it is shared" in run(*plan)
    (step,) = json.loads(run(*plan, "--json"))["steps"]
    assert (step["action"], step["current"], step["wanted"]) == ("set_rdma_mode", "shared", "exclusive")
    assert run("discover").endswith("\nRDMA mode: shared\n")
    assert {pf["rdma_mode"] for pf in json.loads(run("discover", "--json"))} == {"shared"}
    rdma.set_exclusive(enabled=True)
    assert "nothing to do" in run(*plan)


@pytest.mark.parametrize("mode", ["Exclusive", "private", "true", "[]", "1"])
def test_other_words_are_refused(mode: str) -> None:
    """With the place."""
    with pytest.raises(ConfigError, match="rdmaMode"):
        config(f"rdmaMode: {mode}\n")
