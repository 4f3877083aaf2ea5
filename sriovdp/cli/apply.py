"""`sriovdp apply`: set up PFs and VFs as the config file says."""

from pathlib import Path

import click

from sriovdp.cli.allocated import kubelet_option, list_allocated
from sriovdp.cli.options import config_file, node_options, state_option
from sriovdp.config.file import load
from sriovdp.config.nodes import NodeIdentity
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.apply import apply
from sriovdp.provision.boot import list_reboot_needs, wait_for_pfs
from sriovdp.state.journal import Journal

_APPLIED = 4


@click.command(epilog="Example: sriovdp apply config.yaml")
@config_file
@state_option
@kubelet_option
@click.option(
    "--boot", is_flag=True, help="Wait first until the PFs of the config are there: the machine is still booting."
)
@click.option(
    "--boot-timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long --boot waits.",
)
@click.option("--all-or-nothing", is_flag=True, help="Change no PF if one of them is in use.")
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit with 4 if something was changed, with 0 if nothing had to be."
)
@node_options
def command(  # noqa: PLR0913 (one for each option)
    config_path: Path,
    state: Path,
    kubelet: Path,
    *,
    key: str,
    boot: bool,
    boot_timeout: float,
    all_or_nothing: bool,
    detailed_exitcode: bool,
    node_name: str | None,
    node_labels: dict[str, str] | None,
) -> None:
    """Create VFs, bind their drivers and set them up as the config file says. Every change is read back.

    A PF is left as it is, and the exit code is 3, if the change would disturb a VF in use. If a change fails, its PF is
    set back to what it was, and the exit code is 1.
    """
    config, sysfs = load(config_path, NodeIdentity.find(node_name, node_labels), key=key), Sysfs()
    if boot:
        wait_for_pfs(config, sysfs, boot_timeout, click.echo)
    for need in list_reboot_needs(config, take_snapshot(sysfs), sysfs):
        click.echo(f"needs a reboot: {need}")
    journal = Journal(state / "journal")
    outcome = apply(
        config,
        sysfs,
        journal,
        click.echo,
        allocated=lambda: {} if boot else list_allocated(kubelet),
        all_or_nothing=all_or_nothing,
    )
    if outcome.steps and detailed_exitcode:
        click.get_current_context().exit(_APPLIED)
