"""Who has which VF, as the kubelet of this node tells: an option and what it is for."""

import asyncio
from pathlib import Path

import click

from sriovdp.cli.options import FOLDER
from sriovdp.kubelet.pod_devices import PodDevices

kubelet_option = click.option(
    "--kubelet-dir",
    "kubelet",
    type=FOLDER,
    default=Path("/var/lib/kubelet"),
    show_default=True,
    help="The kubelet's folder. When its PodResources socket is there, it is asked for who has a VF.",
)


def ask_kubelet(kubelet: Path) -> PodDevices:
    """Which pod has which device. It never fails: the answer's `problem` says why there is none."""
    socket = kubelet / "pod-resources/kubelet.sock"
    if not socket.exists():
        return PodDevices(problem=f"{socket} is not there")
    from sriovdp.kubelet.podresources import PodResources  # noqa: PLC0415 (gRPC takes long to import)

    return asyncio.run(PodResources(kubelet).list_devices())


def list_allocated(kubelet: Path) -> dict[str, str]:
    """Owner of each device that a pod was given, by its ID, which is a PCI address for VFs. Empty without a kubelet.

    A kubelet that does not answer is told on stderr: the journal, the namespaces and open devices are still looked at.
    """
    devices = ask_kubelet(kubelet)
    if devices.problem and (kubelet / "pod-resources/kubelet.sock").exists():
        click.echo(f"warning: not known from the kubelet who has a VF: {devices.problem}", err=True)
    return devices.owners()
