"""Options that several commands have."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path, file_okay=False)

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("/etc/sriovdp/config.yaml"),
    show_default=True,
    help="The config file.",
)

state_option = click.option(
    "--state-dir",
    "state",
    type=FOLDER,
    default=Path("/var/lib/sriovdp"),
    show_default=True,
    help="Folder with the journal.",
)

sysfs_option = click.option(
    "--sysfs",
    "root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/sys"),
    show_default=True,
    help="A recorded node, as `sriovdp record` saves it.",
)


def _read_labels(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[str, str] | None:
    wrong = next((label for label in given if "=" not in label), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} is no label; write key=value")
    return {key: value for key, _, value in (label.partition("=") for label in given)} or None


_name_option = click.option("--node-name", help="Kubernetes name of the node, if the file has entries for some nodes.")
_label_option = click.option(
    "--node-label",
    "node_labels",
    multiple=True,
    callback=_read_labels,
    metavar="KEY=VALUE",
    help="A label of the node.",
)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which node a shared config file is read for."""
    return _name_option(_label_option(command))
