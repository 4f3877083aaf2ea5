"""`python -m tests.fuzz [--runs N] [TARGET...]`: fuzz the targets, two at once, and print what came of each.

An input that a target does not stand is kept in build/fuzz; `python -m tests.fuzz --one TARGET FILE` runs it again.
"""

import argparse
import logging
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_KEPT = Path("build/fuzz")


def main() -> int:
    """Parse the command line and run; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, metavar="N", help="inputs for each target (default: a target's own number)")
    parser.add_argument("--one", action="store_true", help="run one target in this process")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    options = parser.parse_args()
    if options.one:
        _fuzz(options.targets[0], options.runs, options.targets[1:])
    from tests.fuzz.targets import list_targets

    names = options.targets or list(list_targets())
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        passed = list(pool.map(lambda name: _report(name, options.runs), names))
    failed = [name for name, good in zip(names, passed, strict=True) if not good]
    _say(f"fuzz: {len(names)} targets, {len(failed)} with a crash{': ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _report(name: str, runs: int | None) -> bool:
    """Run one target in a process of its own and print a line about it."""
    command = [sys.executable, "-m", "tests.fuzz", "--one", *(["--runs", str(runs)] if runs else []), name]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    found = re.search(r"Done (\d+) runs", done.stderr)
    passed = done.returncode == 0 and found is not None
    said = f"{found[1]} inputs" if found else "ended early"
    _say(f"{name:<10} {said}, {time.monotonic() - started:.0f} s, {'no crash' if passed else 'CRASH'}")
    if not passed:
        _say("\n".join(done.stderr.splitlines()[-40:]))
    return passed


def _fuzz(name: str, runs: int | None, files: list[str]) -> None:
    """Does not come back: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["cni", "sriovdp"]):
        from tests.fuzz.targets import list_targets
    target = list_targets()[name]
    logging.disable(logging.CRITICAL)
    _KEPT.mkdir(parents=True, exist_ok=True)
    flags = [
        f"-atheris_runs={runs or target.runs}",
        f"-artifact_prefix={_KEPT}/{name}-",
        "-max_len=2048",
        "-timeout=60",
    ]
    flags += ["-rss_limit_mb=1024", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *flags, *files], lambda data: target.run(atheris.FuzzedDataProvider(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
