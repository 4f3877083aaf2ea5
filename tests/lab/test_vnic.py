"""The software NIC itself: its functions on the PCI bus, their drivers, its size, VFIO."""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.vnic_cards import Card, list_cards, run, wait_for

pytestmark = pytest.mark.lab(pfs=0, vnic="ice:4")

_Load = Callable[..., list[Card]]
_IDS = {
    "ice": ("0x8086", "0x1592", "0x1889", "ice", "iavf"),
    "i40e": ("0x8086", "0x1572", "0x154c", "i40e", "iavf"),
    "idpf": ("0x8086", "0x1452", "0x145c", "idpf", "idpf"),
    "mlx5": ("0x15b3", "0x101d", "0x101e", "mlx5_core", "mlx5_core"),
    "bnxt": ("0x14e4", "0x1750", "0x1806", "bnxt_en", "bnxt_en"),
    "octeontx2": ("0x177d", "0xa063", "0xa064", "rvu_nicpf", "rvu_nicvf"),
}


def _read(path: Path) -> str:
    return path.read_text().strip()


def _driver(function: Path) -> str:
    return (function / "driver").resolve().name


def test_the_machine_has_the_cards_of_its_shape() -> None:
    """Cards and sizes are those of the mark; modprobe accepts the drivers that are there."""
    (card,) = list_cards()
    assert card.address == "0001:01:00.0"
    assert _read(card.pf / "sriov_totalvfs") == "4"
    assert _driver(card.pf) == "ice"
    assert run("modprobe", "iavf").returncode == 0


@pytest.mark.parametrize("profile", _IDS)
def test_functions_have_the_ids_and_drivers_of_their_vendor(vnic: _Load, profile: str) -> None:
    """Discovery reads vendor, device, driver, physfn and virtfn: all as with the real card."""
    (card,) = vnic(f"{profile}:4")
    card.up()
    card.write_numvfs(4)
    vf = card.vf(3)
    assert (
        _read(card.pf / "vendor"), _read(card.pf / "device"), _read(vf / "device"), _driver(card.pf), _driver(vf)
    ) == _IDS[profile]  # fmt: skip
    assert _read(vf / "vendor") == _IDS[profile][0]
    assert (vf / "physfn").resolve() == card.pf.resolve()
    assert _read(vf / "class") == "0x020000"
    assert card.vf_netdev(3)
    card.write_numvfs(0)
    assert not vf.exists()


def test_a_card_is_where_it_was_put(vnic: _Load) -> None:
    """NUMA node, root port, PCI domain of five digits, as behind VMD."""
    with_port, without = vnic("ice:2/node=0,ice:2/root_port=0", domain=0x10000)
    assert with_port.address == "10000:01:00.0"
    assert with_port.pf.resolve().parent.name == "10000:00:00.0"
    assert without.pf.resolve().parent.name == "pci10000:02"
    assert _read(with_port.pf / "numa_node") == "0"
    assert _read(with_port.pf / "current_link_speed") == "16.0 GT/s PCIe"
    without.write_numvfs(2)
    assert without.vf(1).name == "10000:02:02.1"
    assert _read(without.vf(1) / "numa_node") == "-1"


def test_the_core_refuses_what_it_refuses_on_any_nic(vnic: _Load) -> None:
    """More VFs than there are; another number while there are some (drivers/pci/iov.c sriov_numvfs_store)."""
    (card,) = vnic("ice:4")
    with pytest.raises(OSError, match=os.strerror(errno.ERANGE)):
        card.write_numvfs(5)
    card.write_numvfs(2)
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        card.write_numvfs(3)


def test_vfs_without_autoprobe_have_no_driver(vnic: _Load) -> None:
    """And get one by `driver_override` and `drivers_probe` (drivers/pci/pci-driver.c pci_device_can_probe)."""
    (card,) = vnic("bnxt:2")
    card.up()
    (card.pf / "sriov_drivers_autoprobe").write_text("0")
    card.write_numvfs(2)
    assert not (card.vf(0) / "driver").exists()
    (card.vf(0) / "driver_override").write_text("bnxt_en")
    Path("/sys/bus/pci/drivers_probe").write_text(card.vf(0).name)
    assert card.vf_netdev(0)


@pytest.mark.parametrize("options", ["", "/root_port=0"])
def test_a_card_is_pulled_and_plugged_in(vnic: _Load, options: str) -> None:
    """PF, VFs and netdevs go; a new card has no VFs, and works."""
    (card,) = vnic(f"ice:4{options}")
    card.write_numvfs(4)
    netdev, vf = card.vf_netdev(0), card.vf(0)
    card.pull()
    assert not card.pf.exists()
    assert not vf.exists()
    assert not Path(f"/sys/class/net/{netdev}").exists()
    card.plug()
    assert card.numvfs() == 0
    card.write_numvfs(2)
    assert card.vf_netdev(1)


def test_a_function_is_removed_and_found_again(vnic: _Load) -> None:
    """By sysfs, as an admin does it; the scan finds no VF a second time."""
    (card,) = vnic("mlx5:4")
    card.write_numvfs(2)
    (card.pf / "remove").write_text("1")
    assert not card.pf.exists()
    Path("/sys/bus/pci/rescan").write_text("1")
    assert card.numvfs() == 0
    card.write_numvfs(2)
    functions = set(Path("/sys/bus/pci/devices").iterdir())
    Path("/sys/bus/pci/rescan").write_text("1")
    assert set(Path("/sys/bus/pci/devices").iterdir()) == functions


def test_a_card_that_can_not_be_is_refused(vnic: _Load) -> None:
    """With the reason; nothing is left behind."""
    for cards, reason in (
        ("e1000:4", "no profile e1000"),
        ("ice:400", "400 VFs are not 1 to 240"),
        ("ice:4/lazy=1", "lazy=1 is no habit"),
    ):
        with pytest.raises(AssertionError, match=reason):
            vnic(cards)
    assert vnic("ice:4")


def test_full_size(vnic: _Load) -> None:
    """8 PFs with 128 VFs each, all with netdevs and IOMMU groups, all in the kernel's lists."""
    cards = vnic(",".join(["ice:128", "mlx5:128", "i40e:128", "idpf:128"] * 2))
    for card in cards:
        card.write_numvfs(128)
    wait_for(lambda: len(list(Path("/sys/class/net").iterdir())) >= 8 * 129)
    assert len(list(Path("/sys/bus/pci/devices").glob("0001:??:??.?/iommu_group/devices/0001:??:??.?"))) == 8 * 130
    assert [len(card.listed()) for card in cards[:4]] == [128, 128, 128, 0]


def test_vfio_takes_a_vf(vnic: _Load) -> None:
    """vfio-pci binds it, its group is viable, type 1 takes a mapping, and a reset works (include/uapi/linux/vfio.h)."""
    run("modprobe", "vfio-pci")
    (card,) = vnic("ice:2")
    card.write_numvfs(2)
    group = _bind(card.vf(0), "vfio-pci")
    container, viable = os.open("/dev/vfio/vfio", os.O_RDWR), os.open(f"/dev/vfio/{group}", os.O_RDWR)
    try:
        status = bytearray(struct.pack("II", 8, 0))
        fcntl.ioctl(viable, _vfio(3), status)
        assert struct.unpack("II", status)[1] & 1, "the group is viable"
        fcntl.ioctl(viable, _vfio(4), struct.pack("i", container))
        fcntl.ioctl(container, _vfio(2), 1)
        device = fcntl.ioctl(viable, _vfio(6), ctypes.create_string_buffer(card.vf(0).name.encode()))
        try:
            _map_page(container)
            fcntl.ioctl(device, _vfio(11))
        finally:
            os.close(device)
    finally:
        os.close(viable)
        os.close(container)
    (card.vf(0) / "driver_override").write_text("\n")


def test_uio_drivers_take_a_vf(vnic: _Load) -> None:
    """Both of them, without an interrupt."""
    run("modprobe", "-a", "uio_pci_generic", "igb_uio")
    (card,) = vnic("ice:2")
    card.write_numvfs(2)
    for index, driver in enumerate(("uio_pci_generic", "igb_uio")):
        _bind(card.vf(index), driver)
        assert list((card.vf(index) / "uio").iterdir())


def test_without_an_iommu_there_is_no_group(vnic: _Load) -> None:
    """And vfio-pci refuses."""
    run("modprobe", "vfio-pci")
    (card,) = vnic("ice:2", iommu=0)
    card.write_numvfs(1)
    assert not (card.vf(0) / "iommu_group").exists()
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        _bind(card.vf(0), "vfio-pci")


def test_vfs_share_groups_without_acs(vnic: _Load) -> None:
    """As many as the IOMMU's module is given."""
    (card,) = vnic("ice:4")
    Path("/sys/module/vnic_iommu/parameters/vfs_per_group").write_text("2")
    card.write_numvfs(4)
    groups = [(card.vf(index) / "iommu_group").resolve().name for index in range(4)]
    assert groups[0] == groups[1] != groups[2] == groups[3]


def _vfio(number: int) -> int:
    """_IO(VFIO_TYPE, VFIO_BASE + number)."""
    return (ord(";") << 8) + 100 + number


def _bind(function: Path, driver: str) -> str:
    """Bind to a driver; gives the IOMMU group."""
    (function / "driver_override").write_text(driver)
    if (function / "driver").exists():
        (function / "driver/unbind").write_text(function.name)
    Path(f"/sys/bus/pci/drivers/{driver}/bind").write_text(function.name)
    assert _driver(function) == driver
    return (function / "iommu_group").resolve().name


def _map_page(container: int) -> None:
    """Map a page of this process at I/O address 1 MiB, and take it back."""
    page = ctypes.create_string_buffer(8192)
    address = (ctypes.addressof(page) + 4095) & ~4095
    fcntl.ioctl(container, _vfio(13), struct.pack("IIQQQ", 32, 3, address, 1 << 20, 4096))
    back = bytearray(struct.pack("IIQQ", 24, 0, 1 << 20, 4096))
    fcntl.ioctl(container, _vfio(14), back)
    assert struct.unpack("IIQQ", back)[3] == 4096
