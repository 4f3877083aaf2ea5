"""The list of VLANs that a VF may tag with, in the two spellings of drivers."""

import errno
import os
from pathlib import Path

import pytest

from sriovdp.errors import KernelError, VerifyError
from sriovdp.kernel import vlan_trunk
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.kernel.vlan_trunk import find_trunk, read_trunk, set_trunk
from sriovdp.vlans import VlanIds

PF, VF = "0000:01:00.0", "0000:01:10.2"
MOST = VlanIds.parse("1-4094")


class Driver:
    """Does what is written to the file, and shows it; `deaf` ignores VLANs that it does not like."""

    def __init__(self, root: Path, name: str) -> None:
        devices = root / "bus/pci/devices"
        self.path = devices / PF / "sriov/2/trunk"
        self.path.parent.mkdir(parents=True)
        (devices / VF).mkdir()
        (devices / VF / "physfn").symlink_to(f"../{PF}")
        (devices / PF / "driver").symlink_to(f"../../drivers/{name}")
        self.is_nvidia = name == "mlx5_core"
        self.vlans: set[int] = set()
        self.least = 4094  # VLANs that there were at once, but for the first look
        self.written: list[str] = []
        self.deaf: set[int] = set()
        self.path.touch()

    def read(self, path: str) -> str | None:
        """What the file shows: a page at most."""
        if not Path(path).exists():
            return None
        listed = " ".join(map(str, sorted(self.vlans)))
        text = f"Allowed 802.1Q VLANs: {listed}" if self.is_nvidia and listed else ""
        return (text if self.is_nvidia else str(VlanIds.of(self.vlans)))[: os.sysconf("SC_PAGESIZE") - 1]

    def write(self, path: Path, text: str) -> None:
        """As the kernel does."""
        assert path.samefile(self.path)
        verb, _, words = text.partition(" ")
        if len(text) > os.sysconf("SC_PAGESIZE"):
            raise KernelError("too long", errno=errno.EINVAL)
        given = set(VlanIds.parse(words.replace(" ", "-") if self.is_nvidia else words)) - self.deaf
        self.vlans = self.vlans | given if verb == "add" else self.vlans - given
        self.written.append(text)
        self.least = min(self.least, len(self.vlans))


@pytest.fixture(params=["mlx5_core", "i40e", "ice"])
def driver(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A PF's driver with the file."""
    made = Driver(tmp_path, request.param)
    monkeypatch.setattr(vlan_trunk, "write_text", made.write)
    monkeypatch.setattr(vlan_trunk, "read_text", made.read)
    return made


@pytest.mark.parametrize("text", ["7", "20-22,30", "1-4094", ",".join(map(str, range(2, 4095, 2)))])
def test_a_list_is_set_and_taken_back(driver: Driver, tmp_path: Path, text: str) -> None:
    """Whatever its length; it is never empty on the way, which would let all VLANs pass."""
    path = find_trunk(Sysfs(tmp_path), VF, 2)
    assert path
    set_trunk(path, VlanIds.parse("5-6"))
    set_trunk(path, VlanIds.parse(text))
    assert driver.vlans == set(VlanIds.parse(text))
    assert driver.least > 0
    set_trunk(path, VlanIds())
    assert driver.vlans == set()
    assert read_trunk(path) == VlanIds()


def test_only_what_differs_is_written(driver: Driver) -> None:
    """Each driver in its own words."""
    set_trunk(driver.path, VlanIds.parse("4-8,20"))
    set_trunk(driver.path, VlanIds.parse("6-8,20-21"))
    first = ["add 4 8", "add 20 20"] if driver.is_nvidia else ["add 4-8,20"]
    second = ["add 21 21", "rem 4 5"] if driver.is_nvidia else ["add 21", "rem 4-5"]
    assert driver.written == first + second
    set_trunk(driver.path, VlanIds.parse("6-8,20-21"))
    assert driver.written == first + second


def test_what_a_driver_ignores_is_an_error(driver: Driver) -> None:
    """The pod would be in another network than asked for."""
    driver.deaf = {21}
    with pytest.raises(VerifyError, match="are 20 although 20-21 were set"):
        set_trunk(driver.path, VlanIds.parse("20-21"))


def test_a_driver_without_the_file(driver: Driver, tmp_path: Path) -> None:
    """As Linux's own are; and one that went away in the middle."""
    path = driver.path
    assert find_trunk(Sysfs(tmp_path), VF, 3) is None
    path.unlink()
    assert find_trunk(Sysfs(tmp_path), VF, 2) is None
    with pytest.raises(KernelError, match=r"reading .*sriov/2/trunk failed"):
        set_trunk(path, MOST)
