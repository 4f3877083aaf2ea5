"""A config as text again, with every default written out. What it writes reads as the same config."""

from typing import Any

import yaml

from sriovdp.config.objects import find_object
from sriovdp.config.values import Config


def write_yaml(config: Config) -> str:
    """The config as YAML."""
    text: str = yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True, width=110)
    return text


def to_tree(config: Config) -> dict[str, Any]:
    """The config as it would stand in a file. What is left alone where nothing is given (like `mtu`) is not there."""
    tree: dict[str, Any] = find_object(Config).write(config)
    return tree
