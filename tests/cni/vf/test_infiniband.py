"""GUIDs of InfiniBand VFs, on a PF that a test makes up; the lab has them on the software NIC."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from cni.protocol.netconf import NetConf
from cni.vf.infiniband import agree_in_all, check_fit, has_guid_of, refuse_twin, restore_guids
from cni.vf.settings import Vf
from sriovdp.errors import CniError, KernelError
from sriovdp.kernel.netlink import Netlink
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.model import ZERO_MAC, PciAddress, VfSettings
from sriovdp.state.journal import Attachment, Original

DEVICE, PF = PciAddress("0000:5e:00.2"), "0000:5e:00.0"
ZEROS, ONES = ":".join(["00"] * 8), ":".join(["ff"] * 8)
OLD, NEW = "02:00:00:00:00:00:00:01", "02:00:00:00:00:00:00:a1"
PREFIX = "00:00:00:48:fe:80:00:00:00:00:00:00"


def make_vf(guid: str | None = OLD, *, infiniband: bool = True) -> Vf:
    """A VF whose PF holds this GUID for it."""
    return Vf(DEVICE, 1, 7, VfSettings(ZERO_MAC, node_guid=guid, port_guid=guid), 2044, "ib0", infiniband=infiniband)


def make_original(guid: str | None) -> Original:
    """How it was, with that GUID on the PF and on its netdev."""
    settings = VfSettings(ZERO_MAC, node_guid=guid, port_guid=guid)
    return Original("mlx5_core", settings, "ib2", mac=f"{PREFIX}:{guid or OLD}")


class Kernel:
    """A PF ib0 that holds a GUID for each VF; refuses some."""

    def __init__(self, *refused: str) -> None:
        self.done: list[tuple[str, str]] = []
        self._refused = refused

    def set_guids(self, pf_ifindex: int, index: int, guid: str, port_guid: str = "") -> None:
        """As Netlink has it."""
        assert (pf_ifindex, index) == (7, 1)
        if guid in self._refused:
            raise KernelError("setting the node GUID failed", errno=errno.EINVAL)
        self.done.append((guid, port_guid or guid))

    def links(self) -> list[Link]:
        """The PF, a VF of its own and one of Ethernet."""
        pf = Link(7, "ib0", f"{PREFIX}:02:00:00:00:00:00:00:99", 2044, 0, None, (), PF, hardware=32)
        vf = Link(8, "ib1", f"{PREFIX}:02:00:00:00:00:00:00:11", 2044, 0, None, (), "0000:5e:00.1", hardware=32)
        return [pf, vf, Link(9, "eth0", "02:00:00:00:00:01", 1500, 0, None, (), "0000:3b:00.0")]

    def guids(self, pf_ifindex: int) -> dict[int, tuple[str, str]]:
        """Of the PF alone."""
        assert pf_ifindex == 7
        return {0: ("02:00:00:00:00:00:00:21", "02:00:00:00:00:00:00:22"), 1: (OLD, OLD)}


def restore(kernel: Kernel, now: str | None, was: str | None) -> bool:
    """Give the VF its old GUID back."""
    return restore_guids(cast("Netlink", kernel), make_vf(now), make_original(was))


@pytest.mark.parametrize(
    ("now", "was", "done"),
    [
        (NEW, OLD, [(OLD, OLD)]),
        (OLD, OLD, []),
        (NEW, ZEROS, [(ZEROS, ZEROS)]),
        (ONES, ZEROS, []),
        (NEW, ONES, [(ONES, ONES)]),
        (NEW, None, []),
        (None, OLD, [(OLD, OLD)]),
    ],
)
def test_guid_of_before_is_given_back(now: str | None, was: str | None, done: list[tuple[str, str]]) -> None:
    """Where it is another one; zeros and ones are none, and one that is not recorded is as good."""
    kernel = Kernel()
    assert restore(kernel, now, was) is bool(done)
    assert kernel.done == done


def test_zeros_that_are_refused_become_ones() -> None:
    """As ib-sriov-cni leaves a VF that had no GUID; any other refusal is an error."""
    kernel = Kernel(ZEROS)
    assert restore(kernel, NEW, ZEROS)
    assert kernel.done == [(ONES, ONES)]
    with pytest.raises(KernelError, match="node GUID"):
        restore(Kernel(OLD), NEW, OLD)


def test_what_counts_as_restored() -> None:
    """The GUID, whatever the queue pair and prefix of a new netdev are; an entry of version 0.1 has none."""
    original = make_original(OLD)
    assert has_guid_of(f"00:00:01:ff:fe:80:00:00:00:00:00:01:{OLD}", original)
    assert not has_guid_of(f"{PREFIX}:{NEW}", original)
    assert not has_guid_of(None, original)
    assert not has_guid_of("02:00:00:00:00:01", Original("mlx5_core", None, "eth1", mac="02:00:00:00:00:01"))
    settings = original.settings
    assert settings
    assert agree_in_all(settings, replace(settings, node_guid=None, port_guid=None))
    assert agree_in_all(replace(settings, node_guid=ONES), replace(settings, node_guid=ZEROS))
    assert not agree_in_all(replace(settings, port_guid=NEW), settings)
    assert not agree_in_all(replace(settings, link_state="enable"), settings)
    assert not agree_in_all(None, settings)


@pytest.mark.parametrize(
    ("guid", "owner"),
    [
        ("02:00:00:00:00:00:00:99", "ib0 has it"),
        ("02:00:00:00:00:00:00:11", "ib1 has it"),
        ("02:00:00:00:00:00:00:21", "ib0 VF 0 has it"),
        ("02:00:00:00:00:00:00:22", "ib0 VF 0 has it"),
        ("02:00:00:00:00:00:00:31", "0000:5e:00.3 gets it back after container c9 (net1)"),
    ],
)
def test_twin_is_refused(tmp_path: Path, guid: str, owner: str) -> None:
    """Whoever has it on this node, by whatever name."""
    (tmp_path / "class/net/ib0/device").mkdir(parents=True)
    (tmp_path / "class/net/ib0/device/sriov_totalvfs").touch()
    debt = Attachment(
        "c9", "net1", "n", "0000:5e:00.3", "kernel", make_original("02:00:00:00:00:00:00:31"), "", 0, 0, ""
    )
    common = (Sysfs(tmp_path), cast("Netlink", Kernel()), make_vf())
    with pytest.raises(CniError, match="guid is") as refused:
        refuse_twin(*common, guid, [debt])
    assert owner in refused.value.message
    refuse_twin(*common, NEW, [debt])
    refuse_twin(*common, OLD, [debt])
    refuse_twin(*common, "02:00:00:00:00:00:00:31", [replace(debt, released=True)])


def _conf(**values: Any) -> NetConf:
    return NetConf(name="n", version="1.0.0", device=DEVICE, **values)


@pytest.mark.parametrize(
    ("conf", "vf", "original", "reason"),
    [
        (
            _conf(raw={"type": "ib-sriov"}),
            make_vf(infiniband=False),
            OLD,
            "type is ib-sriov, but it is no InfiniBand VF",
        ),
        (_conf(guid=NEW), make_vf(infiniband=False), OLD, "guid is given, but it is no InfiniBand VF"),
        (_conf(mac="02:00:00:00:00:01"), make_vf(), OLD, "mac is 02:00:00:00:00:01, but it is an InfiniBand VF"),
        (_conf(ipam="dhcp"), make_vf(), OLD, 'ipam.type is "dhcp", but it is an InfiniBand VF'),
        (_conf(guid=NEW), make_vf(None), OLD, "cannot be set: its driver does not report GUIDs"),
        (
            _conf(guid=NEW),
            replace(make_vf(), pf_ifindex=None, settings=None),
            OLD,
            "cannot be set: its PF has no netdev on the host",
        ),
        (_conf(raw={"type": "ib-sriov"}), make_vf(), ZEROS, "it has no GUID"),
        (_conf(raw={"type": "ib-sriov"}), make_vf(), ONES, "it has no GUID"),
    ],
)
def test_misfits_are_refused(conf: NetConf, vf: Vf, original: str, reason: str) -> None:
    """Before anything is changed, with the VF's name."""
    with pytest.raises(CniError) as refused:
        check_fit(conf, vf, make_original(original))
    assert refused.value.message.startswith("ib0 VF 1 (0000:5e:00.2): ")
    assert reason in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize("make", [lambda: make_vf(ZEROS), make_vf])
def test_what_fits(make: Callable[[], Vf]) -> None:
    """A GUID that is given makes up for one that is missing; without the type nobody asks for one."""
    check_fit(_conf(raw={"type": "ib-sriov"}, guid=NEW), make(), make_original(ZEROS))
    check_fit(_conf(raw={"type": "sriov"}), make(), make_original(ZEROS))
    check_fit(_conf(raw={"type": "ib-sriov"}), make(), make_original(OLD))
    check_fit(_conf(raw={"type": "ib-sriov"}), make(), Original("vfio-pci", None))
