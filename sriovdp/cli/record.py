"""`sriovdp record`: save what the other commands read of a node, to use it elsewhere."""

from pathlib import Path

import click

from sriovdp.cli.options import FOLDER, sysfs_option
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.inventory import take_snapshot
from sriovdp.node.recording import record
from sriovdp.node.sources import collect_facts


@click.command(epilog="Example: sriovdp record node7, then: sriovdp validate config.yaml --sysfs node7")
@click.argument("target", type=FOLDER, metavar="DIR")
@sysfs_option
def command(target: Path, root: Path) -> None:
    """Save the network functions and accelerators of this node in a new folder DIR.

    Other commands read it with `--sysfs DIR`, on any machine. Serial numbers and IP addresses are left out, MACs are
    replaced.
    """
    sysfs = Sysfs(root)
    node = take_snapshot(sysfs)
    record(root, node, collect_facts(sysfs, node), target)
    vfs = sum(len(pf.vfs) for pf in (*node.pfs, *node.accelerators))
    click.echo(f"{len(node.pfs)} PFs, {len(node.accelerators)} accelerators and {vfs} VFs saved in {target}")
