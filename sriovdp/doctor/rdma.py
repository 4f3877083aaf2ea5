"""Checks of RDMA: network namespaces, device nodes, GUIDs."""

from collections.abc import Iterator

from sriovdp.doctor.check import Finding, SkipError, check, fail, ok, warn
from sriovdp.doctor.examined import Examined, name_vf_of
from sriovdp.model import PhysicalFunction, VirtualFunction

_ZERO_GUID = "00:00:00:00:00:00:00:00"


def _demand_rdma(examined: Examined) -> list[tuple[PhysicalFunction, VirtualFunction]]:
    found = [(pf, vf) for pf, vf in examined.vfs() if vf.traits.is_rdma]
    if not found:
        raise SkipError("no VF can do RDMA")
    return found


@check("rdma-mode", "rdma", "drivers/infiniband/core/device.c, netns_mode")
def check_mode(examined: Examined) -> Iterator[Finding]:
    """RDMA devices are shared among network namespaces, or go with the VF into the pod."""
    _demand_rdma(examined)
    mode = examined.view.text("/sys/module/ib_core/parameters/netns_mode")
    if mode in {"N", "0"}:
        yield ok(
            "RDMA devices are exclusive to a network namespace: `rdma` has to follow `sriov` in a network's plugins"
        )
    elif mode is not None:
        yield ok("RDMA devices are shared: a pod sees those of others")


@check("rdma-nodes", "rdma", "drivers/infiniband/core/uverbs_main.c")
def check_nodes(examined: Examined) -> Iterator[Finding]:
    """Each VF with an RDMA device has its uverbs node."""
    for pf, vf in _demand_rdma(examined):
        for device in vf.traits.rdma:
            if device.uverbs is None:
                yield warn(
                    f"{name_vf_of(pf, vf)}: {device.name} has no uverbs node: programs cannot use it",
                    "`modprobe ib_uverbs`",
                )


@check("guids", "rdma", "drivers/infiniband/ulp/ipoib; IFLA_VF_IB_NODE_GUID of linux/if_link.h")
def check_guids(examined: Examined) -> Iterator[Finding]:
    """Each InfiniBand VF has GUIDs."""
    places = [(pf, vf) for pf, vf in examined.vfs() if pf.traits.link_type == "infiniband" and vf.settings]
    if not places:
        raise SkipError("no InfiniBand VF is here")
    for pf, vf in places:
        guids = (vf.settings.node_guid, vf.settings.port_guid) if vf.settings else ()
        if _ZERO_GUID in guids:
            yield fail(f"{name_vf_of(pf, vf)}: its GUID is zero: its port stays down", "`sriovdp apply`")


CHECKS = (check_mode, check_nodes, check_guids)
