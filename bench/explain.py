"""`python -m bench.explain [--rounds N]`: CPU time of `sriovdp explain` on a recorded node of 8 PFs and 1,024 VFs.

Everything after import counts: reading the config and the tree, matching, and writing the text (or JSON) to nowhere.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from click.testing import CliRunner

from sriovdp.cli.explain import command
from tests.recordings.nodes import build

CONFIG = """
resourceList:
  - {resourceName: kernel, selectors: {vendors: ["8086"], devices: ["1889"], drivers: [iavf], pfNames: ["ens00#0-31"]}}
  - {resourceName: other, selectors: [{drivers: [ixgbevf]}, {rootDevices: ["0000:03:00.0#0-15"], drivers: [iavf]}]}
  - {resourceName: acc, deviceType: accelerator, selectors: {devices: ["0d5d"]}}
  - {resourceName: rdma, selectors: {isRdma: true}}
  - {resourceName: dpdk, selectors: {vendors: ["8086"], drivers: [vfio-pci]}}
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.explain", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="of each (default 20)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        root = build("large", Path(folder) / "node")
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG)
        arguments = ["--config", str(config), "--sysfs", str(root)]
        for name, more in (("text", []), ("JSON", ["--json"])):
            times = sorted(_measure([*arguments, *more]) for _ in range(rounds))
            print(f"explain, 1,024 VFs, 5 pools, {name}: CPU ms median {median(times):.0f}, most {times[-1]:.0f}")


def _measure(arguments: list[str]) -> float:
    """CPU milliseconds of one run."""
    runner = CliRunner()
    start = time.process_time()
    result = runner.invoke(command, arguments)
    spent = (time.process_time() - start) * 1000
    if result.exit_code:
        raise SystemExit(result.output)
    return spent


if __name__ == "__main__":
    main()
