"""Settings of a VF on the PF's side, with a kernel that refuses some."""

import errno
from collections.abc import Mapping
from typing import Any, cast

import pytest

from cni.vf.settings import Vf, apply_settings, refuse_settings
from sriovdp.errors import CniError, KernelError
from sriovdp.kernel.netlink import Netlink
from sriovdp.model import PciAddress, VfSettings

NOW = VfSettings("02:00:00:00:00:01", spoofchk=True, trust=False, link_state="auto")
WANTED = VfSettings("02:00:00:00:00:02", 100, 3, spoofchk=False, trust=True, link_state="enable")


class Kernel:
    """Takes settings in one request, but for those that it refuses; does none of a request that it refuses."""

    def __init__(self, refused: str = "", number: int = errno.EOPNOTSUPP) -> None:
        self.requests: list[list[str]] = []
        self._refused, self._number = refused, number

    def set_vf(self, pf_ifindex: int, index: int, changes: Mapping[str, Any]) -> None:
        """As Netlink has it."""
        assert (pf_ifindex, index) == (7, 3)
        self.requests.append(list(changes))
        if self._refused in changes:
            raise KernelError(f"setting {', '.join(changes)} failed", errno=self._number)


def apply(kernel: Kernel, *, skip: bool = False) -> list[str]:
    """Set all that differs."""
    vf = Vf(PciAddress("0000:01:10.0"), 3, 7, NOW)
    return apply_settings(cast("Netlink", kernel), vf, WANTED, skip_unsupported=skip)


def test_all_settings_go_in_one_request() -> None:
    """And what is as wanted already is not set."""
    kernel = Kernel()

    assert apply(kernel) == []

    assert [set(request) for request in kernel.requests] == [
        {"mac", "vlan", "qos", "vlan_proto", "spoofchk", "trust", "link_state"}
    ]


def test_refused_setting_is_named() -> None:
    """The error is about that one alone, and says what to do."""
    with pytest.raises(KernelError, match="setting link_state failed") as refused:
        apply(Kernel("link_state"))

    assert "onUnsupported" in refused.value.hint


def test_refused_setting_may_be_let_go() -> None:
    """All others are set."""
    kernel = Kernel("link_state")

    assert apply(kernel, skip=True) == ["link_state"]

    done = [name for request in kernel.requests[1:] if "link_state" not in request for name in request]
    assert set(done) == {"mac", "vlan", "qos", "vlan_proto", "spoofchk", "trust"}


def test_vlan_is_never_let_go() -> None:
    """Without its VLAN, or with another protocol, the VF would be in another network: that is no matter of taste."""
    with pytest.raises(KernelError, match="setting vlan, qos, vlan_proto failed") as refused:
        apply(Kernel("vlan_proto"), skip=True)
    assert "onUnsupported" not in refused.value.hint


def test_broken_nic_is_not_asked_again() -> None:
    """What is no refusal of a setting is reported as it is."""
    kernel = Kernel("trust", errno.EIO)
    with pytest.raises(KernelError, match=r"setting vlan, .*trust"):
        apply(kernel, skip=True)
    assert len(kernel.requests) == 1


ADDRESS = PciAddress("0000:01:10.0")


@pytest.mark.parametrize(
    ("vf", "reason"),
    [
        (
            Vf(ADDRESS, None, None, None, pf="eth1"),
            r"eth1 \(0000:01:10.0\): .*its PF is not on this machine, as in a virt",
        ),
        (Vf(ADDRESS, 3, None, None, pf="0000:01:00.0"), r"0000:01:00.0 VF 3 .*its PF has no netdev on the host"),
        (Vf(ADDRESS, 3, 7, None, pf="eth0"), r"eth0 VF 3 .*the driver of eth0 has no settings of it"),
    ],
)
def test_what_no_pf_can_set_is_refused_with_its_reason(vf: Vf, reason: str) -> None:
    """The error names the keys; a VLAN is never let go, as it keeps pods apart."""
    with pytest.raises(CniError, match=reason) as refused:
        refuse_settings(vf, ["trust", "spoofchk"])
    assert "setting trust, spoofchk failed" in refused.value.message
    assert refuse_settings(vf, ["trust"], skip_unsupported=True) == ["trust"]
    assert refuse_settings(vf, []) == []
    with pytest.raises(CniError, match="setting vlan, trust failed"):
        refuse_settings(vf, ["vlan", "trust"], skip_unsupported=True)


def test_a_mac_that_the_pf_does_not_take_is_left_to_the_netdev() -> None:
    """Only where there is a netdev that gets it."""
    kernel = Kernel("mac")
    vf = Vf(ADDRESS, 3, 7, NOW)
    assert apply_settings(cast("Netlink", kernel), vf, WANTED, skip_mac=True) == ["mac"]
    with pytest.raises(KernelError, match="setting mac failed"):
        apply(Kernel("mac"))
