"""`sriovdp apply`: make the node as its config says."""

from pathlib import Path

import click

from sriovdp.cli.options import config_option, state_option
from sriovdp.config.file import load
from sriovdp.journal import Journal
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.provision.apply import apply


@click.command()
@config_option
@state_option
def command(config_path: Path, state: Path) -> None:
    """Make the node as the config says: create VFs, set admin MACs, bind drivers, read all back.

    A VF in use is never touched: then nothing is changed at all, and the exit code is 3.
    """
    apply(load(config_path), Sysfs(), Journal(state / "journal"), report=click.echo)
