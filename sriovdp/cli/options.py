"""Options that several commands have."""

from pathlib import Path

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
    help="A recorded sysfs tree. Only /sys has VF settings: they come from rtnetlink.",
)
