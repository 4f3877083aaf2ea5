"""The name of a device in log lines and errors, and when it is read."""

from pathlib import Path

import pytest

from sriovdp.errors import DeviceError, SriovdpError, naming
from sriovdp.kernel.device_name import DeviceName, named
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import name_container
from tests.fakes.sysfs import PF, Tree, vf_address

VF = vf_address(PF, 2)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A PF with three VFs."""
    tree = Tree(tmp_path)
    tree.add_pf(vfs=3)
    return tree


@pytest.mark.parametrize(
    ("address", "name"),
    [(VF, f"enp1s0 VF 2 ({VF})"), (PF, f"enp1s0 ({PF})"), ("0000:ff:00.0", "0000:ff:00.0")],
)
def test_a_device_is_named_with_its_pf(tree: Tree, address: str, name: str) -> None:
    """One that is gone has its address alone."""
    assert str(DeviceName(tree.sysfs, address)) == name


def test_a_pf_without_a_netdev_here_is_named_by_its_address(tmp_path: Path) -> None:
    """As when it is in another network namespace, or on another driver."""
    tree = Tree(tmp_path)
    tree.add_pf(netdev=None, vfs=3)
    assert str(DeviceName(tree.sysfs, VF)) == f"{PF} VF 2 ({VF})"
    assert str(DeviceName(tree.sysfs, PF)) == PF


def test_an_error_starts_with_the_closest_name_once(tree: Tree) -> None:
    """What is further out adds nothing, and a line that starts with the name can leave it out."""

    @named
    def fail(_: Sysfs, address: str) -> None:
        raise DeviceError("it has no driver", hint=f"bind {address[:4]}")

    with pytest.raises(DeviceError) as caught, naming("pod default/web"):
        fail(tree.sysfs, VF)
    assert str(caught.value) == f"enp1s0 VF 2 ({VF}): it has no driver; bind 0000"
    assert caught.value.reason == "it has no driver; bind 0000"


def test_a_name_that_the_message_has_is_not_repeated() -> None:
    """Texts that begin with the device are left as they are."""
    with pytest.raises(SriovdpError) as caught, naming("eth0"):
        raise SriovdpError("eth0: no VF is free")
    assert (caught.value.message, caught.value.reason) == ("eth0: no VF is free", "no VF is free")


def test_a_name_is_read_for_errors_only() -> None:
    """A pod that is attached without one does not wait for it."""

    class Unread:
        def __str__(self) -> str:
            raise AssertionError

    with naming(Unread()):
        pass


@pytest.mark.parametrize(
    ("args", "container", "ifname", "name"),
    [
        (
            "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web",
            "0123456789abcdef",
            "net1",
            "pod ns/web (container 0123456789ab) net1",
        ),
        ("K8S_POD_NAME=web", "", "net1", "pod default/web net1"),
        ("", "c1", "net1", "container c1 net1"),
        ("", "c1", "\x1b[2J", "container c1 \\x1b[2J"),
        ("", "", "", ""),
    ],
)
def test_a_container_is_named_by_its_pod(args: str, container: str, ifname: str, name: str) -> None:
    """With as much of its ID as finds it, and nothing that a terminal acts on."""
    assert name_container(args, container, ifname) == name
