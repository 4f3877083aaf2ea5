"""`sriovdp validate`: say whether a config file is right."""

from pathlib import Path

import click

from sriovdp.cli.options import config_option
from sriovdp.config.file import load


@click.command()
@config_option
def command(config_path: Path) -> None:
    """Check a config file and tell all its faults. Nothing on the node is looked at."""
    config = load(config_path)
    pools, entries = len(config.pools), len(config.physical_functions)
    plural = "entry" if entries == 1 else "entries"
    click.echo(f"{config_path} is right: {pools} pool{'' if pools == 1 else 's'}, {entries} PF {plural}")
