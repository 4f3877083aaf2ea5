"""`sriovdp reset`: give PFs back as they were before the first apply."""

from pathlib import Path

import click

from sriovdp.cli.allocated import kubelet_option, list_allocated
from sriovdp.cli.options import state_option
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.provision.reset import reset
from sriovdp.state.journal import Journal


@click.command()
@state_option
@kubelet_option
@click.option("--force", is_flag=True, help="Take VFs away from pods that have them; they are named.")
@click.option("--pf", "only", multiple=True, metavar="NAME", help="This PF alone, by name or PCI address; repeatable.")
def command(state: Path, kubelet: Path, *, force: bool, only: tuple[str, ...]) -> None:
    """Give PFs back as they were before the first apply: number of VFs, autoprobe, MTU, drivers, settings.

    Stop the agent first. Nothing is changed, and the exit code is 3, when a VF is in use.
    """
    journal = Journal(state / "journal")
    with journal.claim():
        reset(Sysfs(), journal, click.echo, force=force, only=only, allocated=list_allocated(kubelet))
