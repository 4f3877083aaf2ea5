"""`sriovdp record`: save what the other commands look at, to look at it elsewhere."""

from pathlib import Path

import click

from sriovdp.cli.options import FOLDER, sysfs_option
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.inventory import collect_facts, take_snapshot
from sriovdp.node.recording import record


@click.command()
@click.argument("target", type=FOLDER, metavar="DIR")
@sysfs_option
def command(target: Path, root: Path) -> None:
    """Save this node's PCI network functions and accelerators in a new folder, for `--sysfs DIR` of other commands.

    Without serial numbers and IP addresses; MACs are replaced.
    """
    sysfs = Sysfs(root)
    node = take_snapshot(sysfs)
    record(root, node, collect_facts(sysfs, node), target)
    vfs = sum(len(pf.vfs) for pf in (*node.pfs, *node.accelerators))
    click.echo(f"{len(node.pfs)} PFs, {len(node.accelerators)} accelerators and {vfs} VFs are saved in {target}")
