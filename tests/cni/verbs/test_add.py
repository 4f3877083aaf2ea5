"""ADD before its first change: the mode, and what that mode does not have."""

import pytest

from cni.protocol.netconf import NetConf
from cni.verbs.add import choose_mode
from cni.vf.settings import Vf
from sriovdp.errors import CniError
from sriovdp.model import PciAddress

VF = Vf(PciAddress("0000:01:10.0"), 0, 7, None, 1500)


def conf(mtu: int | None = None, ipam: str | None = None) -> NetConf:
    """A network."""
    return NetConf("red", "1.0.0", VF.address, mtu=mtu, ipam=ipam)


@pytest.mark.parametrize(("driver", "mode"), [("igbvf", "kernel"), ("vfio-pci", "dpdk"), ("igb_uio", "dpdk")])
def test_driver_decides_the_mode(driver: str, mode: str) -> None:
    """The MTU of the PF itself is fine in each."""
    assert choose_mode(conf(mtu=1500), VF, driver) == mode


@pytest.mark.parametrize(
    ("network", "told"),
    [(conf(mtu=9000), r"PF VF 0 \(0000:01:10.0\): mtu is 9000, but its PF has 1500"), (conf(ipam="dhcp"), '"dhcp"')],
)
def test_what_dpdk_mode_does_not_have_is_refused(network: NetConf, told: str) -> None:
    """An MTU that nothing has would be reported to the pod; in kernel mode the driver answers for itself."""
    assert choose_mode(network, VF, "igbvf") == "kernel"
    with pytest.raises(CniError, match=told) as caught:
        choose_mode(network, VF, "vfio-pci")
    assert (caught.value.code, bool(caught.value.hint)) == (7, True)


def test_vf_without_a_visible_pf_is_not_compared() -> None:
    """In a virtual machine the PF's MTU is not known."""
    assert choose_mode(conf(mtu=9000), Vf(VF.address, 0, None, None), "vfio-pci") == "dpdk"
