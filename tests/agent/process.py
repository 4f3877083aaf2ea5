"""`python -m tests.agent.process FOLDER ...`: `sriovdp` on a fake sysfs tree, with all its folders below one.

For the real command as a real process: sysfs and device nodes are no options of its own, and neither is how often it
looks at the node.
"""

import functools
import sys
from pathlib import Path

from sriovdp.agent import Agent, Roots
from sriovdp.cli import agent


def main() -> None:
    """Be `sriovdp agent`, with what has no option set otherwise."""
    folder = Path(sys.argv.pop(1))
    vars(agent)["Roots"] = functools.partial(Roots, sysfs=folder / "sys", dev=folder / "dev")
    vars(agent)["Agent"] = functools.partial(Agent, rescan_interval=0.1)
    names = {"state": "state", "run": "run", "kubelet": "k", "device-info": "devinfo", "cdi": "cdi"}
    agent.command([*(f"--{option}-dir={folder / name}" for option, name in names.items()), *sys.argv[1:]])


if __name__ == "__main__":
    main()
