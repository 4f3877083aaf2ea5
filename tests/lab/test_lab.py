"""The lab itself: what its machine is made of, and what becomes of a command's output and end."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from setup.kernel import find_kernel
from tests.lab import accelerator
from tests.lab.shape import MEMORY_MIB, Shape
from tests.lab.vm import Vm

_PCI = Path("/sys/bus/pci/devices")
_IGB_PF = "0x10c9"


def _pfs() -> list[Path]:
    return [path for path in sorted(_PCI.iterdir()) if (path / "device").read_text().strip() == _IGB_PF]


def _put_into_namespace(name: str, netdev: str, address: str) -> None:
    for command in (
        f"ip netns add {name}",
        f"ip link set {netdev} netns {name}",
        f"ip -n {name} addr add {address} dev {netdev}",
        f"ip -n {name} link set {netdev} up",
    ):
        subprocess.run(command.split(), check=True)


def _run_in_lab(*command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """What a person gets who runs a command in the lab."""
    lab = [sys.executable, "-m", "tests.lab", "--pfs", "0", *options, "--", *command]
    return subprocess.run(lab, capture_output=True, text=True, timeout=300, check=False)


def test_output_and_exit_code_of_a_command_come_out() -> None:
    """Stdout, stderr and exit code are the command's own, and its working directory is the checkout."""
    done = _run_in_lab("sh", "-c", "echo out; echo err >&2; pwd; exit 42")
    assert done.stdout.splitlines() == ["out", str(Path(__file__).parents[2])], done.stderr
    assert (done.stderr, done.returncode) == ("err\n", 42)


def test_a_command_that_hangs_is_killed_and_the_console_shown() -> None:
    """After the bound the machine is gone, and its last lines are shown."""
    done = _run_in_lab("sh", "-c", "echo last words >/dev/kmsg; sleep 600", options=["--timeout", "60"])
    assert done.returncode == 125
    assert "killed after 60 s" in done.stderr
    assert "last words" in done.stderr


def test_a_guest_that_dies_is_reported_from_a_command_that_fails() -> None:
    """A kernel panic is no exit code."""
    done = _run_in_lab("sh", "-c", "echo c >/proc/sysrq-trigger; sleep 600")
    assert done.returncode == 125
    assert "died before the command ended" in done.stderr


def test_the_host_is_read_only_for_the_guest(tmp_path: Path) -> None:
    """What the guest writes goes to its overlay, never to this machine."""
    mine = tmp_path / "mine"
    mine.write_text("host")
    done = _run_in_lab("sh", "-c", f"echo guest >{mine}; cat {mine}")
    assert (done.stdout, mine.read_text()) == ("guest\n", "host")


def test_what_a_node_left_on_the_host_is_not_seen() -> None:
    """Journal, spool, leases, networks and the kubelet's files: the guest is a node of its own."""
    folders = ["/var/lib/sriovdp", "/var/lib/cni", "/etc/cni", "/var/lib/kubelet", "/run", "/etc/sriovdp", "/opt/cni"]
    name = f"left-by-{os.getpid()}"
    made: list[Path] = []
    try:
        for folder in map(Path, folders):
            made += [path for path in (folder, folder.parent) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        done = _run_in_lab("ls", "-d", *folders, *(f"{folder}/{name}" for folder in folders))
    finally:
        for left in folders:
            Path(left, name).unlink(missing_ok=True)
        for created in made:
            created.rmdir()
    assert done.stdout.split() == sorted(folders)


def test_a_trial_run_executes_the_guest(tmp_path: Path) -> None:
    """By emulation it succeeds with the lab's kernel, and fails with one that hangs or is none."""
    kernel = find_kernel()
    assert kernel
    emulated = ("-machine", "q35", "-accel", "tcg", "-cpu", "max")
    assert accelerator.try_machine(kernel.image, emulated, 120)
    assert not accelerator.try_machine(kernel.image, (*emulated, "-S"), 3), "it starts, and executes nothing"
    (tmp_path / "none").write_bytes(b"no kernel")
    assert not accelerator.try_machine(tmp_path / "none", emulated, 120)


@pytest.mark.parametrize("options", [["--pfs", "9"], ["--hugepages", "4096"]])
def test_a_machine_that_does_not_fit_is_refused(options: list[str]) -> None:
    """An impossible shape is refused before anything boots."""
    done = _run_in_lab("true", options=options)
    assert done.returncode == 125
    assert "asked for" in done.stderr


@pytest.mark.lab
def test_the_guest_has_one_pf_an_iommu_and_its_drivers() -> None:
    """The default machine: one 82576 on igb, IOMMU groups, 2 GiB at most, every driver that the project binds to."""
    assert os.uname().release.startswith("6.12.")
    assert len(_pfs()) == 1
    assert (_pfs()[0] / "driver").resolve().name == "igb"
    assert any(Path("/sys/kernel/iommu_groups").iterdir())
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert int(total.split()[1]) < MEMORY_MIB * 1024
    for module in ("igbvf", "vfio-pci", "uio_pci_generic", "igb_uio"):
        subprocess.run(["modprobe", "--dry-run", module], check=True)


@pytest.mark.lab(pfs=2, roots=True, numa=True, wire=True, hugepages=64, containerd=True)
def test_the_guest_has_what_its_shape_asks_for() -> None:
    """Two PFs behind root ports on two NUMA nodes, wired together, with huge pages and containerd."""
    assert sorted((path / "numa_node").read_text().strip() for path in _pfs()) == ["0", "1"]
    assert len({path.resolve().parent for path in _pfs()}) == 2
    assert "HugePages_Total:      32" in Path("/proc/meminfo").read_text()
    subprocess.run(["ctr", "version"], check=True, capture_output=True)


@pytest.mark.lab(pfs=2, roots=True, numa=True, wire=True, hugepages=64, containerd=True)
def test_wired_pfs_reach_each_other() -> None:
    """Packets go from one PF to the other, each in a network namespace of its own."""
    for number, path in enumerate(_pfs(), 1):
        _put_into_namespace(f"side{number}", next((path / "net").iterdir()).name, f"192.0.2.{number}/24")
    ping = ["ip", "netns", "exec", "side1", "ping", "-c", "20", "-i", "0.5", "-w", "30", "192.0.2.2"]
    assert subprocess.run(ping, capture_output=True, check=False).stdout.count(b"bytes from") > 0


@pytest.mark.lab(nic="virtio", hugepages=448, vnic="mlx5:2")  # as test_virtio.py, for one boot
def test_the_virtio_nic_has_vfs_that_reach_each_other() -> None:
    """One PF with four VFs on the kernel's own driver, an IOMMU group each; frames go from VF to VF."""
    pf = next(path.parent for path in _PCI.glob("*/sriov_totalvfs"))
    (pf / "sriov_numvfs").write_text("4")
    vfs = [path.resolve() for path in sorted(pf.glob("virtfn*"))]
    assert [(path / "driver").resolve().name for path in vfs] == ["virtio-pci"] * 4
    assert len({(path / "iommu_group").resolve() for path in vfs}) == 4
    assert not (vfs[0] / "net").exists(), "the netdev is below virtioN"
    for number, path in enumerate(vfs[:2], 1):
        _put_into_namespace(f"vf{number}", next(path.glob("virtio*/net/*")).name, f"192.0.2.{number}/24")
    ping = ["ip", "netns", "exec", "vf1", "ping", "-c", "10", "-i", "0.5", "-w", "30", "192.0.2.2"]
    assert subprocess.run(ping, capture_output=True, check=False).stdout.count(b"bytes from") > 0


@pytest.mark.lab(pfs=0, disk=True)
def test_before_a_reboot() -> None:
    """Something on the node's disk, and something that a reboot takes away."""
    Path("/var/lib/sriovdp/kept").write_text("kept")
    Path("/run/lost").write_text("lost")


@pytest.mark.lab(pfs=0, disk=True)
def test_after_a_reboot(rebooted: None) -> None:
    """The disk is as it was, though power was lost at once; `/run` is empty."""
    assert not Path("/run/lost").exists()
    assert Path("/var/lib/sriovdp/kept").read_text() == "kept"


def test_an_own_clock_stands_still_while_others_have_the_processors(tmp_path: Path) -> None:
    """A guest that computes, and is kept from it for 20 seconds in the middle, does not see them."""
    spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    script = f"cat /proc/uptime; : >/run/lab/result/begun; {spin}; cat /proc/uptime"
    with Vm(Shape(pfs=0), ["/run/lab/bin/busybox", "sh", "-c", script], own_clock=True) as vm:
        with (tmp_path / "output").open("wb") as output:
            vm.start(stdout=output.fileno())
        while not (vm.result / "begun").exists():
            assert vm.is_running(), vm.tail()
            time.sleep(0.05)
        used = vm.read_cpu_seconds()
        while vm.read_cpu_seconds() < used + 1:  # it waits for its file no more
            assert vm.is_running(), vm.tail()
            time.sleep(0.05)
        os.kill(vm.pid, signal.SIGSTOP)
        time.sleep(20)
        os.kill(vm.pid, signal.SIGCONT)
        assert vm.wait(240) == 0
    begun, ended = (float(line.split()[0]) for line in (tmp_path / "output").read_text().splitlines())
    assert ended - begun < 20


def test_several_pfs_fit_into_one_machine() -> None:
    """Two PFs can both be split; on one bus their VFs would take the same slots."""
    split = "for pf in /sys/class/net/eth[01]/device; do echo 7 >$pf/sriov_numvfs && ls -d $pf/virtfn* | wc -l; done"
    done = _run_in_lab("sh", "-c", split, options=["--pfs", "2"])
    assert (done.stdout.split(), done.returncode) == (["7", "7"], 0), done.stderr


def test_results_come_out_of_the_guest_as_they_are_there() -> None:
    """Names, outcomes and tracebacks are those of the guest. A guest that dies fails the rest of its file only.

    The next file finds nothing of the one before, in the same guest or, where that died, in another one.
    """
    files = [f"tests/lab/samples/{name}.py" for name in ("leaving", "fresh", "ends", "last")]
    command = [sys.executable, "-m", "pytest", "-rA", "--durations=0", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "3 failed, 4 passed, 1 skipped" in done.stdout, done.stdout
    assert "PASSED tests/lab/samples/ends.py::test_that_passes" in done.stdout
    assert "assert 'lab' == 'elsewhere'" in done.stdout, "the traceback is that of the guest"
    assert "the moon is not full" in done.stdout
    assert "the guest ended before the test did" in done.stdout
    assert "sysrq triggered crash" in done.stdout, "the console's end is shown"
    assert re.search(r"s call +tests/lab/samples/ends.py::test_that_fails", done.stdout), "durations are reported"


def test_shapes_that_can_not_be_are_errors() -> None:
    """Bounds of a machine are held by its description."""
    with pytest.raises(ValueError, match="PFs asked for"):
        Shape(pfs=5)
