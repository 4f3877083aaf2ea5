"""The command `sriovdp`. A command's module is imported when the command is called, so that `--help` is quick."""

from importlib import import_module
from typing import Any

import click

from sriovdp.errors import InUseError, SriovdpError

_SUMMARIES = {
    "discover": "Show the PFs and VFs of this node.",
    "validate": "Check a config file and tell all its faults.",
    "explain": "Tell which pool has a device, or why none has it.",
    "plan": "Show what apply would change, and whom that would disturb.",
    "apply": "Make the node as the config says.",
    "reset": "Give PFs back as they were before the first apply.",
    "attachments": "Show which pod has which VF, verify it, repair it.",
    "agent": "Run the agent until SIGTERM.",
    "status": "Ask the agent whether it can attach a VF now.",
    "record": "Save what this node looks like, to look at it elsewhere.",
    "schema": "Print the JSON schema of the config file.",
    "install-cni": "Install the CNI plugin for the container runtime.",
}

_FAILED = 1
_REFUSED = 3


class LazyGroup(click.Group):
    """A group whose commands are modules of this package, each with its `command`. Errors become exit codes here."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Names of all commands, in the order of a node's life."""
        return list(_SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in _SUMMARIES:
            return None
        command: click.Command = import_module(f"sriovdp.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours is one message on stderr."""
        try:
            return super().invoke(ctx)
        except SriovdpError as error:
            click.echo(f"sriovdp: error: {error}", err=True)
            ctx.exit(_REFUSED if isinstance(error, InUseError) else _FAILED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sriovdp", prog_name="sriovdp")
def cli() -> None:
    """SR-IOV and DPDK device manager for Kubernetes nodes.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused because a device is in use.
    """


def main() -> None:
    """Entry point of `sriovdp`."""
    cli(prog_name="sriovdp")


if __name__ == "__main__":
    main()
