"""`sriovdp schema`: the JSON schema of the config file."""

import click

from sriovdp.config.schema import write_schema


@click.command()
def command() -> None:
    """Print the JSON schema of the config file, for editors."""
    click.echo(write_schema(), nl=False)
