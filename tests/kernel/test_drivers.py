"""Driver binding on a tree: what is written, what is read back, and what happens when the kernel does not do it."""

import subprocess
from pathlib import Path

import pytest

from sriovdp.errors import DeviceError, VerifyError
from sriovdp.kernel import drivers, modules
from sriovdp.kernel.drivers import bind, current_driver, is_bound_as_wanted, resolve_driver, unbind, wait_for_netdev
from tests.fakes.sysfs import PF, Tree, vf_address

VF = vf_address(PF, 0)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A PF with one VF on igbvf; the kernel reacts to writes."""
    tree = Tree(tmp_path / "sys")
    tree.add_pf(vfs=1)
    tree.bind(VF, "igbvf")
    monkeypatch.setattr(drivers, "write_text", tree.write)
    return tree


def answer_modprobe(monkeypatch: pytest.MonkeyPatch, output: str = "", error: str = "") -> list[tuple[str, ...]]:
    """Let modprobe answer this; gives the list of its calls."""
    calls: list[tuple[str, ...]] = []

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        calls.append(arguments)
        return subprocess.CompletedProcess(arguments, 1 if error else 0, output, error)

    monkeypatch.setattr(modules, "_run_modprobe", run)
    return calls


def test_binding_is_override_unbind_probe_and_leaves_no_override(tree: Tree) -> None:
    """vfio-pci has the VF afterwards, and a later probe is free again."""
    bind(tree.sysfs, VF, "vfio-pci")
    assert current_driver(tree.sysfs, VF) == "vfio-pci"
    assert tree.log == [
        ("driver_override", "vfio-pci"),
        ("unbind", VF),
        ("drivers_probe", VF),
        ("driver_override", "\n"),
    ]


def test_a_vf_that_is_bound_right_is_not_touched(tree: Tree) -> None:
    """No write at all."""
    bind(tree.sysfs, VF, "igbvf")
    assert tree.log == []


def test_unbinding_twice_is_one_change(tree: Tree) -> None:
    """A VF without a driver has nothing to be unbound from."""
    unbind(tree.sysfs, VF)
    unbind(tree.sysfs, VF)
    assert tree.log == [("unbind", VF)]
    assert current_driver(tree.sysfs, VF) is None


def test_vfio_without_iommu_is_refused_before_anything_is_unbound(tree: Tree) -> None:
    """The VF keeps its driver, and the error says how to get an IOMMU."""
    (tree.pci(VF) / "iommu_group").unlink()
    with pytest.raises(DeviceError, match="no IOMMU group; switch the IOMMU on"):
        bind(tree.sysfs, VF, "vfio-pci")
    assert (current_driver(tree.sysfs, VF), tree.log) == ("igbvf", [])


def test_a_probe_without_effect_is_an_error_and_the_old_driver_comes_back(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes the probe, but vfio-pci does not want the device."""
    bind_really = tree.bind

    def refuse_vfio(address: str, driver: str) -> None:
        if driver != "vfio-pci":
            bind_really(address, driver)

    monkeypatch.setattr(tree, "bind", refuse_vfio)
    with pytest.raises(VerifyError, match=r"enp1s0 VF 0 .*: it was probed for vfio-pci but is unbound"):
        bind(tree.sysfs, VF, "vfio-pci")
    assert current_driver(tree.sysfs, VF) == "igbvf"


def test_the_kernel_driver_is_the_one_of_the_modalias(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is named by modprobe; drivers for user space that claim every device are passed over."""
    calls = answer_modprobe(monkeypatch, "vfio_pci\nigbvf\n")
    assert resolve_driver(tree.sysfs, VF, "kernel") == "igbvf"
    assert calls[0] == ("--resolve-alias", "pci:v00008086d000010CAsv00sd00bc02sc00i00")


def test_a_registered_driver_needs_no_modprobe(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded, so it does not matter that modprobe would fail."""
    calls: list[tuple[str, ...]] = []

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        calls.append(arguments)
        is_load = arguments[0] == "--"
        return subprocess.CompletedProcess(arguments, int(is_load), "" if is_load else "igbvf\n", "busy" * is_load)

    monkeypatch.setattr(modules, "_run_modprobe", run)
    unbind(tree.sysfs, VF)
    assert resolve_driver(tree.sysfs, VF, "kernel") == "igbvf"
    assert [call[0] for call in calls] == ["--resolve-alias"]


@pytest.mark.parametrize("command", ["false", "no-such-program"])
def test_a_function_with_the_same_ids_shows_the_driver(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The driver is built in, and no list of modules has its ids; or there is no modprobe at all."""
    monkeypatch.setattr(modules, "_MODPROBE", command)
    other = tree.add_vf(PF, 1)
    unbind(tree.sysfs, VF)
    tree.bind(other, "vfio-pci")
    assert resolve_driver(tree.sysfs, VF, "kernel") == "kernel"
    tree.unbind(other)
    tree.bind(other, "igbvf")
    assert resolve_driver(tree.sysfs, VF, "kernel") == "igbvf"


def test_the_kernel_chooses_a_driver_that_is_built_in(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """It probes without an override, which the PF's autoprobe allows for that moment."""
    answer_modprobe(monkeypatch, "")
    tree.unbind(VF)
    tree.bind(VF, "vfio-pci")
    (tree.pci(PF) / "sriov_drivers_autoprobe").write_text("0\n")
    bind(tree.sysfs, VF, resolve_driver(tree.sysfs, VF, "kernel"))
    assert current_driver(tree.sysfs, VF) == "igbvf"
    assert tree.log == [
        ("driver_override", "\n"),
        ("unbind", VF),
        ("sriov_drivers_autoprobe", "1"),
        ("drivers_probe", VF),
        ("sriov_drivers_autoprobe", "0"),
        ("driver_override", "\n"),
    ]


def test_no_kernel_driver_at_all_is_an_error_and_the_old_one_comes_back(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel knows none for these ids."""
    answer_modprobe(monkeypatch, "")
    tree.unbind(VF)
    tree.bind(VF, "vfio-pci")
    really = tree.bind
    monkeypatch.setattr(tree, "bind", lambda address, driver: driver == "vfio-pci" and really(address, driver))
    with pytest.raises(VerifyError, match=r"enp1s0 VF 0 .*no driver of this kernel, built in or module, takes pci:v0"):
        bind(tree.sysfs, VF, resolve_driver(tree.sysfs, VF, "kernel"))
    assert current_driver(tree.sysfs, VF) == "vfio-pci"


@pytest.mark.parametrize("driver", ["mlx5_vfio_pci", "hisi_acc_vfio_pci", "virtio_vfio_pci", "pds-vfio-pci"])
def test_a_variant_of_vfio_is_for_user_space(tree: Tree, driver: str) -> None:
    """It needs an IOMMU group of its own, and is no kernel driver."""
    (tree.root / "bus/pci/drivers" / driver).mkdir()
    assert not is_bound_as_wanted(driver, "kernel")
    bind(tree.sysfs, VF, driver)
    assert current_driver(tree.sysfs, VF) == driver
    unbind(tree.sysfs, VF)
    (tree.pci(VF) / "iommu_group").unlink()
    with pytest.raises(DeviceError, match="no IOMMU group"):
        bind(tree.sysfs, VF, driver)


def test_a_driver_of_another_name_than_its_module_is_found(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module says which PCI drivers it registers."""
    answer_modprobe(monkeypatch, "mlx5_mod\n")
    (tree.root / "module/mlx5_mod/drivers/pci:igbvf").mkdir(parents=True)
    assert resolve_driver(tree.sysfs, VF, "kernel") == "igbvf"


def test_a_driver_that_is_not_there_is_loaded_or_reported(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded one needs no modprobe; one that modprobe does not know is an error."""
    calls = answer_modprobe(monkeypatch)
    assert resolve_driver(tree.sysfs, VF, "vfio-pci") == "vfio-pci"
    assert calls == []
    with pytest.raises(DeviceError, match="no PCI driver of that name; install the module"):
        resolve_driver(tree.sysfs, VF, "uio_pci_generic")
    answer_modprobe(monkeypatch, error="modprobe: FATAL: Module x not found")
    with pytest.raises(DeviceError, match="FATAL: Module x not found"):
        resolve_driver(tree.sysfs, VF, "uio_pci_generic")


@pytest.mark.parametrize(
    ("driver", "wanted", "right"),
    [
        ("igbvf", "kernel", True),
        ("vfio-pci", "kernel", False),
        ("igb_uio", "kernel", False),
        (None, "kernel", False),
        ("vfio-pci", "vfio-pci", True),
        ("igbvf", "vfio-pci", False),
        (None, "vfio-pci", False),
    ],
)
def test_kernel_is_any_driver_that_is_not_for_user_space(driver: str | None, wanted: str, right: bool) -> None:
    """The config does not have to know the name of a NIC's VF driver."""
    assert is_bound_as_wanted(driver, wanted) is right


def test_the_netdev_is_awaited(tree: Tree) -> None:
    """Its name once it is there; an error with the driver's name when it does not come."""
    assert wait_for_netdev(tree.sysfs, VF) == "v0110f0"
    bind(tree.sysfs, VF, "vfio-pci")
    with pytest.raises(DeviceError, match="no netdev 0 s after it was bound to vfio-pci"):
        wait_for_netdev(tree.sysfs, VF, patience=0.0)


def join_group(tree: Tree, *members: str) -> None:
    """Put functions into the VF's IOMMU group, as machines without ACS do."""
    devices = tree.root / "kernel/iommu_groups/10/devices"
    devices.mkdir()
    for member in (VF, *members):
        (devices / member).symlink_to(tree.pci(member))


def test_a_group_with_kernel_drivers_in_it_is_refused_with_their_names(tree: Tree) -> None:
    """VFIO could not open such a group; bridges, unbound functions and companions are no hindrance."""
    tree.add_function("0000:00:01.0", **{"class": "0x060400"})
    tree.bind("0000:00:01.0", "igb")
    tree.add_function("0000:01:10.7")
    tree.add_function("0000:02:00.0")
    tree.bind("0000:02:00.0", "igb")
    join_group(tree, "0000:00:01.0", "0000:01:10.7", "0000:02:00.0")
    with pytest.raises(
        DeviceError, match=r"IOMMU group 10 has functions with other drivers: 0000:02:00.0 \(igb\); .*ACS"
    ):
        bind(tree.sysfs, VF, "vfio-pci")
    assert (current_driver(tree.sysfs, VF), tree.log) == ("igbvf", [])
    bind(tree.sysfs, VF, "vfio-pci", {"0000:02:00.0"})
    assert current_driver(tree.sysfs, VF) == "vfio-pci"


def test_without_iommu_only_when_it_is_allowed(tree: Tree) -> None:
    """That vfio would take it is not enough; if allowed, vfio's switch is set, if the kernel's vfio can do it."""
    (tree.pci(VF) / "iommu_group").unlink()
    mode = tree.root / "module/vfio/parameters/enable_unsafe_noiommu_mode"
    mode.parent.mkdir(parents=True)
    with pytest.raises(DeviceError, match="this kernel's vfio cannot go without; a kernel with CONFIG_VFIO_NOIOMMU"):
        bind(tree.sysfs, VF, "vfio-pci", noiommu=True)
    mode.write_text("N\n")
    with pytest.raises(DeviceError, match="to go without any protection, write noiommu: true into its range"):
        bind(tree.sysfs, VF, "vfio-pci")
    assert current_driver(tree.sysfs, VF) == "igbvf"
    bind(tree.sysfs, VF, "vfio-pci", noiommu=True)
    assert (current_driver(tree.sysfs, VF), mode.read_text()) == ("vfio-pci", "Y")


def test_a_driver_that_does_not_come_back_is_reported(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both reasons are in the message."""
    monkeypatch.setattr(tree, "bind", lambda *_: None)
    with pytest.raises(
        VerifyError, match=r"probed for vfio-pci but is unbound; and it did not go back to igbvf: .*unbound"
    ):
        bind(tree.sysfs, VF, "vfio-pci")


def test_no_driver_is_none() -> None:
    """The config's word for it."""
    assert is_bound_as_wanted(None, "none")
    assert not is_bound_as_wanted("igbvf", "none")
