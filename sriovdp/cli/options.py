"""Options and arguments that several commands have."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

FOLDER = click.Path(path_type=Path, file_okay=False)

DEFAULT_CONFIG = Path("/etc/sriovdp/config.yaml")
STDIN = Path("/dev/stdin")
_NAMED = "sriovdp.config"

Command = TypeVar("Command", bound=Callable[..., Any])


def name_config(context: click.Context, file: str | None) -> None:
    """Keep a config file that an argument names, for the option. `-` is standard input."""
    if file is not None:
        context.meta[_NAMED] = STDIN if file == "-" else Path(file)


def _take_argument(context: click.Context, _: click.Parameter, given: str | None) -> None:
    name_config(context, given)


def _choose(context: click.Context, _: click.Parameter, given: Path | None) -> Path:
    named: Path | None = context.meta.get(_NAMED)
    if named and given:
        raise click.UsageError(f"two config files: {named} and {given}. Give one, as FILE or with --config.")
    return named or (STDIN if given == Path("-") else given) or DEFAULT_CONFIG


def config_option(command: Command) -> Command:
    """Add `-c, --config`, the parameter `config_path`. An argument that names the file is read before it."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        callback=_choose,
        help=f"The config file; - is standard input.  [default: {DEFAULT_CONFIG}]",
    )(command)


key_option = click.option(
    "--key", default="", metavar="KEY", help="The key of a ConfigMap's data to read, if there are several."
)


def config_file(command: Command) -> Command:
    """Add the config file, as argument FILE or as `-c, --config`, and `--key`: `config_path` and `key`."""
    argument = click.argument(
        "file", required=False, metavar="[FILE]", is_eager=True, expose_value=False, callback=_take_argument
    )
    return argument(config_option(key_option(command)))


state_option = click.option(
    "--state-dir",
    "state",
    type=FOLDER,
    default=Path("/var/lib/sriovdp"),
    show_default=True,
    help="Folder of the journal.",
)

run_option = click.option(
    "--run-dir",
    "run",
    type=FOLDER,
    default=Path("/run/sriovdp"),
    show_default=True,
    help="Folder of the agent's socket.",
)

kubelet_option = click.option(
    "--kubelet-dir",
    "kubelet",
    type=FOLDER,
    default=Path("/var/lib/kubelet"),
    show_default=True,
    help="Folder of the kubelet.",
)

sysfs_option = click.option(
    "--sysfs",
    "root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/sys"),
    show_default=True,
    metavar="DIR",
    help="A recorded node (see `sriovdp record`) in place of this one.",
)


def _read_labels(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[str, str] | None:
    wrong = next((label for label in given if "=" not in label), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} is not a label; write KEY=VALUE")
    return {key: value for key, _, value in (label.partition("=") for label in given)} or None


_name_option = click.option(
    "--node-name", metavar="NAME", help="Kubernetes name of the node, for a file with entries for some nodes."
)
_label_option = click.option(
    "--node-label",
    "node_labels",
    multiple=True,
    callback=_read_labels,
    metavar="KEY=VALUE",
    help="A label of the node; repeat the option for more.",
)


def node_options(command: Command) -> Command:
    """Options that say for which node a shared config file is read."""
    return _name_option(_label_option(command))
