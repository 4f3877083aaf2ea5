"""Run in the lab's guest: `python -m demo CONFIG`. Exit code 0 only if every check of the story held."""

import asyncio
import sys
import tempfile
from pathlib import Path

from demo.stage import DemoFailedError, Stage
from demo.story import Story


def main() -> int:
    """Tell the story with the given config."""
    config = Path(sys.argv[1])
    stage = Stage()
    with tempfile.TemporaryDirectory(prefix="sriovdp-demo-") as root:
        try:
            asyncio.run(Story(stage, config, Path(root)).tell())
        except (DemoFailedError, AssertionError, TimeoutError, OSError) as error:
            sys.stderr.write(f"demo: FAILED: {error}\n")
            return 1
    stage.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
