"""The process that `bench.kubelet` measures: the command `sriovdp agent`, on a generated tree."""

import sys
from functools import partial
from pathlib import Path

import click

from sriovdp.cli.main import cli


def main(root: Path) -> None:
    """Run the command; with PYTHONPATH it is that of another checkout."""
    cli.get_command(click.Context(cli), "agent")
    module = sys.modules["sriovdp.cli.agent"]
    vars(module)["Roots"] = partial(module.Roots, sysfs=root / "sys", dev=root / "dev")
    options = {"state": "state", "run": "run", "kubelet": "k", "device-info": "devinfo", "cdi": "cdi"}
    folders = [f"--{name}-dir={root / folder}" for name, folder in options.items()]
    cli.main(["agent", f"--config={root / 'config.json'}", *folders])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
