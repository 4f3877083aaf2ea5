"""The attachment that a request is about, before anything is known or done."""

from cni.protocol.netconf import Network
from cni.protocol.wire import Request
from sriovdp.kernel import netns
from sriovdp.state.journal import Attachment, Original, read_boot_id


def draft_attachment(
    request: Request, network: Network, device: str, original: Original, netns_fd: int | None = None
) -> Attachment:
    """The attachment that a request asks for, in its first phase."""
    sandbox_id = netns.identify(netns_fd) if netns_fd is not None else netns.NetnsId(0, 0)
    return Attachment(
        container_id=request.container_id,
        ifname=request.ifname,
        network=network.name,
        device=device,
        mode="dpdk" if original.name is None else "kernel",
        original=original,
        netns=request.netns,
        netns_dev=sandbox_id.dev,
        netns_ino=sandbox_id.ino,
        boot_id=read_boot_id(),
        config=network.raw,
        args=request.args,
        path=request.path,
    )
