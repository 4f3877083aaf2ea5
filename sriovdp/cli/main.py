"""The command `sriovdp`. A command's module is imported when the command is called, so that `--help` is quick."""

import difflib
import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from sriovdp.errors import InUseError, SriovdpError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SUMMARIES = {
    "discover": "Show the PFs, VFs and accelerators of this node.",
    "validate": "Check a config file or a network, and list all faults.",
    "explain": "Show which pool has a device, or why none has it.",
    "plan": "Show what `apply` would change. Changes nothing.",
    "apply": "Set up PFs and VFs as the config file says.",
    "reset": "Set PFs back to what they were before the first apply.",
    "attachments": "List which pod has which VF; verify and repair that.",
    "agent": "Run the agent of this node.",
    "status": "Ask the agent whether it can attach a VF.",
    "reload": "Let the agent read its config file now.",
    "doctor": "Examine this node, and print what fixes each fault.",
    "report": "Save all that support needs of this node in one file.",
    "record": "Save what the node looks like, to use it elsewhere.",
    "import": "Make config and networks from files of the operator, its device plugin and sriov-cni.",
    "schema": "Print the JSON schema of the config file.",
    "install-cni": "Install the CNI plugin for the container runtime.",
    "help": "Show the help of a command.",
}

_MODULES = {"import": "conversion"}
"""Commands whose names no module can have."""

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
        gc.disable()  # an import makes many objects, and next to no garbage
        try:
            module = _MODULES.get(cmd_name, cmd_name.replace("-", "_"))
            command: click.Command = import_module(f"sriovdp.cli.{module}").command
        finally:
            gc.enable()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name. A name that is none is a usage error with the nearest one."""
        name = args[0]
        if name not in _SUMMARIES and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, _SUMMARIES, n=1)
            ctx.fail(f"No such command '{name}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list["CompletionItem"]:
        """Complete the names of commands without importing them, and the options."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 (only while completing)

        found = [CompletionItem(name, help=text) for name, text in _SUMMARIES.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours is one message on stderr."""
        try:
            return super().invoke(ctx)
        except SriovdpError as error:
            click.echo(f"sriovdp: error: {error}", err=True)
            ctx.exit(_REFUSED if isinstance(error, InUseError) else _FAILED)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: sriovdp validate config.yaml && sriovdp plan config.yaml",
)
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
