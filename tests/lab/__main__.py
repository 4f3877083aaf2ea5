"""`python -m tests.lab [OPTIONS] -- COMMAND ARGS`: run a command in the lab, and exit with its exit code."""

import argparse
import sys

from tests.lab.shape import Shape
from tests.lab.vm import LabError, run

_LAB_FAILED = 125  # as `env`, `timeout` and container engines have it: not the command failed, but what runs it


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument(
        "--pfs", type=int, default=1, metavar="N", help="number of emulated Intel 82576 PFs (default 1)"
    )
    parser.add_argument(
        "--roots", action="store_true", help="the PF behind a PCIe root port; several PFs have one each anyway"
    )
    parser.add_argument("--numa", action="store_true", help="two NUMA nodes, with the PFs spread over them")
    parser.add_argument("--wire", action="store_true", help="join all PFs in one Ethernet segment")
    parser.add_argument("--hugepages", type=int, default=0, metavar="MIB", help="MiB of 2 MiB huge pages (default 0)")
    parser.add_argument("--containerd", action="store_true", help="start containerd first")
    parser.add_argument("--control-plane", action="store_true", help="a Kubernetes API server beside the machine")
    parser.add_argument("--disk", action="store_true", help="a disk that outlives a reboot; see tests/lab/guest.sh")
    parser.add_argument("--nic", choices=("igb", "virtio"), default="igb", help="what kind of NIC (default igb)")
    parser.add_argument(
        "--vnic", default="", metavar="CARDS", help="software NICs, like ice:8,mlx5:128; see docs/lab.md"
    )
    parser.add_argument(
        "--root", choices=("host", "trixie"), default="host", help="this machine's own system, or Debian 13"
    )
    parser.add_argument(
        "--timeout", type=float, default=1800, metavar="S", help="kill the lab after S seconds of its own time"
    )
    parser.add_argument(
        "--own-clock", action="store_true", help="the guest's clock stands still while other programs compute"
    )
    parser.add_argument("--monitor", action="store_true", help="the machine's monitor as a port of the guest")
    parser.add_argument("--interactive", action="store_true", help="give the command this terminal")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="what to run, after --")
    options = parser.parse_args()
    try:
        shape = Shape(
            options.pfs, options.roots, options.numa, options.wire, options.hugepages, options.containerd,
            options.control_plane, options.disk, options.nic, options.vnic, options.root, options.monitor,
        )  # fmt: skip
        return run(
            shape,
            options.command,
            timeout=options.timeout,
            interactive=options.interactive,
            own_clock=options.own_clock,
        )
    except (LabError, ValueError) as error:
        sys.stderr.write(f"lab: {error}\n")
        return _LAB_FAILED


if __name__ == "__main__":
    sys.exit(main())
