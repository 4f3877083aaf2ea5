"""`sriovdp attachments`: list, verify and repair which pod has which VF."""

import json
from pathlib import Path
from typing import Any

import click

from cni.verbs.recovery import Recovery
from cni.verbs.release import is_alive
from sriovdp.cli.allocated import ask_kubelet, kubelet_option
from sriovdp.cli.options import state_option, sysfs_option
from sriovdp.errors import SriovdpError
from sriovdp.kernel.device_name import DeviceName
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.kubelet.pod_devices import PodDevices
from sriovdp.state.journal import Attachment, Damage, Journal
from sriovdp.state.locks import Locks

_FAILED = 1


@click.command(epilog="Example: sriovdp attachments --verify")
@state_option
@kubelet_option
@sysfs_option
@click.option("--verify", is_flag=True, help="Compare each attachment with the VF as it is.")
@click.option(
    "--repair",
    is_flag=True,
    help="Finish releases, release VFs whose sandbox is gone, set the settings of attached VFs again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    context: click.Context, state: Path, kubelet: Path, root: Path, *, verify: bool, repair: bool, as_json: bool
) -> None:
    """List the VFs that are attached to pods, and the devices that the kubelet has given to pods.

    The exit code is 1 if --verify or --repair finds a fault, or if a file of the journal is damaged.
    """
    journal = Journal(state / "journal")
    recovery = Recovery(Sysfs(root), journal, Locks(journal.locks))
    if repair:
        for attachment in journal.survey()[0]:
            _repair(recovery, attachment)
    attachments, damages = journal.survey()
    entries = [_describe(recovery, attachment, verify=verify or repair) for attachment in attachments]
    write = _write_json if as_json else _write_text
    click.echo(write(entries, damages, ask_kubelet(kubelet)))
    if damages or any(entry.get("faults") for entry in entries):
        context.exit(_FAILED)


def _repair(recovery: Recovery, attachment: Attachment) -> None:
    try:
        recovery.repair(attachment)
    except SriovdpError as error:
        name = DeviceName(recovery.sysfs, attachment.device)
        said = f"{name}: repairing it for {attachment.owner} failed: {error.reason}"
        click.echo(f"sriovdp: error: {said}", err=True)


def _describe(recovery: Recovery, attachment: Attachment, *, verify: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "device": attachment.device,
        "owner": attachment.owner,
        "interface": attachment.pod_ifname,
        "network": attachment.network,
        "mode": attachment.mode,
        "phase": attachment.phase,
        "sandbox": "alive" if is_alive(attachment) else "gone",
    }
    if verify:
        try:
            entry["faults"] = recovery.verify(attachment)
        except SriovdpError as error:
            entry["faults"] = [str(error)]
    return entry


def _write_json(entries: list[dict[str, Any]], damages: list[Damage], given: PodDevices) -> str:
    damaged = [{"file": str(damage.path), "device": damage.device, "reason": damage.reason} for damage in damages]
    devices = [
        {"resource": resource, "device": id_, "owners": [str(holder) for holder in holders]}
        for (resource, id_), holders in given.holders.items()
    ]
    kubelet = {"devices": devices, "problem": given.problem or None}
    return json.dumps({"attachments": entries, "damaged": damaged, "kubelet": kubelet}, indent=2)


def _write_text(entries: list[dict[str, Any]], damages: list[Damage], given: PodDevices) -> str:
    lines = []
    for entry in entries:
        shown = ("device", "owner", "network", "mode", "phase")
        lines.append("  ".join([*(str(entry[key]) for key in shown), f"sandbox {entry['sandbox']}"]))
        lines += [f"    {fault}" for fault in entry.get("faults", ())]
    lines += [damage.reason for damage in damages]
    lines = lines or ["no VF is attached"]
    for (resource, id_), holders in given.holders.items():
        lines.append(f"{id_}  {holders[0]}  given by the kubelet as {resource}")
    if given.problem:
        lines.append(f"the kubelet does not report which pod has which device: {given.problem}")
    return "\n".join(lines)
