"""`sriovdp help`: the help of a command, as its `--help` prints it."""

import click


@click.command(epilog="Example: sriovdp help apply")
@click.argument("name", required=False, metavar="[COMMAND]")
@click.pass_context
def command(context: click.Context, name: str | None) -> None:
    """Show the help of a command, or the list of commands."""
    parent = context.find_root()
    group = parent.command
    if name is None or not isinstance(group, click.Group):
        click.echo(group.get_help(parent))
        return
    _, found, _ = group.resolve_command(parent, [name])
    if found is not None:
        with click.Context(found, info_name=name, parent=parent) as shown:
            click.echo(found.get_help(shown))
