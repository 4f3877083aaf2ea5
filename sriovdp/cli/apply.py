"""`sriovdp apply`: make the node as its config says."""

from pathlib import Path

import click

from sriovdp.cli.allocated import kubelet_option, list_allocated
from sriovdp.cli.options import config_option, node_options, state_option
from sriovdp.config.file import load
from sriovdp.config.nodes import NodeIdentity
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.apply import apply
from sriovdp.provision.boot import list_reboot_needs, wait_for_pfs
from sriovdp.state.journal import Journal

_APPLIED = 4


@click.command()
@config_option
@state_option
@kubelet_option
@click.option("--boot", is_flag=True, help="Wait for the PFs of the config first, as the machine is only starting.")
@click.option(
    "--boot-timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="S", help="How long."
)
@click.option("--all-or-nothing", is_flag=True, help="Change no PF at all when one is in use.")
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit with 4 when something was changed, 0 when nothing had to."
)
@node_options
def command(  # noqa: PLR0913 (one for each option)
    config_path: Path,
    state: Path,
    kubelet: Path,
    *,
    boot: bool,
    boot_timeout: float,
    all_or_nothing: bool,
    detailed_exitcode: bool,
    node_name: str | None,
    node_labels: dict[str, str] | None,
) -> None:
    """Make the node as the config says: create VFs, set them up, bind drivers, read all back.

    A PF with a VF in use that would be disturbed keeps what it has, and the exit code is 3. A PF whose change fails is
    brought back to what it was, and the exit code is 1.
    """
    config, sysfs = load(config_path, NodeIdentity.find(node_name, node_labels)), Sysfs()
    if boot:
        wait_for_pfs(config, sysfs, boot_timeout, click.echo)
    for need in list_reboot_needs(config, take_snapshot(sysfs), sysfs):
        click.echo(f"needs a reboot: {need}")
    allocated = {} if boot else list_allocated(kubelet)
    journal = Journal(state / "journal")
    outcome = apply(config, sysfs, journal, click.echo, allocated=allocated, all_or_nothing=all_or_nothing)
    if outcome.steps and detailed_exitcode:
        click.get_current_context().exit(_APPLIED)
