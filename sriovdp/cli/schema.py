"""`sriovdp schema`: the JSON schema of the config file."""

import click

from sriovdp.config.schema import write_schema


@click.command(epilog="Example: sriovdp schema > schema.json")
def command() -> None:
    """Print the JSON schema of the config file. Editors use it to complete keys and mark faults."""
    click.echo(write_schema(), nl=False)
