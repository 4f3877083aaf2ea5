"""Which pod has which device, as the kubelet of this node reports."""

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
    help="Folder of the kubelet. Its PodResources socket, if there, reports which pod has a VF.",
)


def ask_kubelet(kubelet: Path) -> PodDevices:
    """Ask which pod has which device. Never fails: the answer's `problem` says why nothing is known."""
    socket = kubelet / "pod-resources/kubelet.sock"
    if not socket.exists():
        return PodDevices(problem=f"{socket} does not exist")
    from sriovdp.kubelet.podresources import PodResources  # noqa: PLC0415 (gRPC takes long to import)

    return asyncio.run(PodResources(kubelet).list_devices())


def list_allocated(kubelet: Path) -> dict[str, str]:
    """Owner of each device that a pod has, by the device's ID (PCI address for VFs). Empty without a kubelet.

    A kubelet that does not answer is a warning on stderr: the journal, namespaces and open devices are checked as well.
    """
    devices = ask_kubelet(kubelet)
    if devices.problem and (kubelet / "pod-resources/kubelet.sock").exists():
        click.echo(f"warning: the kubelet does not report which pod has a VF: {devices.problem}", err=True)
    return devices.owners()
