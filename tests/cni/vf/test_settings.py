"""Settings of a VF on the PF's side, with a kernel that refuses some."""

import errno
from collections.abc import Mapping
from typing import Any, cast

import pytest

from cni.vf.settings import Vf, apply_settings
from sriovdp.errors import KernelError
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
