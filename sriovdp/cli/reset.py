"""`sriovdp reset`: set PFs back to what they were before the first apply."""

from pathlib import Path

import click

from sriovdp.cli.allocated import kubelet_option, list_allocated
from sriovdp.cli.options import state_option
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.provision.reset import reset
from sriovdp.state.journal import Journal


@click.command(epilog="Example: sriovdp reset --pf ens1f0")
@state_option
@kubelet_option
@click.option(
    "--force",
    is_flag=True,
    help="Take VFs from the pods that have them, and print which; with --pf, remove the record of a PF that is gone.",
)
@click.option(
    "--pf",
    "only",
    multiple=True,
    metavar="NAME",
    help="Only this PF, by name or PCI address; repeat the option for more.",
)
def command(state: Path, kubelet: Path, *, force: bool, only: tuple[str, ...]) -> None:
    """Set PFs back to what they were before the first apply: number of VFs, autoprobe, MTU, drivers, settings.

    Stop the agent first. If a VF is in use, nothing is changed, and the exit code is 3.
    """
    journal = Journal(state / "journal")
    with journal.claim():
        reset(Sysfs(), journal, click.echo, force=force, only=only, allocated=lambda: list_allocated(kubelet))
