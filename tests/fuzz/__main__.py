"""`python -m tests.fuzz [--share PERCENT] [TARGET...]`: fuzz the targets, two at once, and print what came of each.

An input of the fuzzer that a target does not stand is kept in build/fuzz, and `python -m tests.fuzz --guided 1 TARGET
FILE` runs it again; of dice it is the seed, and `--diced 1 --seed SEED TARGET` does.
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
    parser.add_argument("--share", type=int, default=100, metavar="PERCENT", help="of the inputs (default 100)")
    parser.add_argument("--guided", type=int, metavar="N", help="so many inputs for one target, by the fuzzer")
    parser.add_argument("--diced", type=int, metavar="N", help="so many inputs for one target, by dice")
    parser.add_argument("--seed", type=int, default=0, metavar="SEED", help="of the first dice (default 0)")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    options = parser.parse_args()
    if options.guided is not None:
        _guide(options.targets[0], options.guided, options.targets[1:])
    if options.diced is not None:
        return _dice(options.targets[0], options.diced, options.seed)
    return _run_all(options.targets, options.share)


def _run_all(names: list[str], share: int) -> int:
    from tests.fuzz.targets import list_targets

    targets = list_targets()
    parts = [(name, kind, getattr(targets[name], kind) * share // 100)
             for name in names or list(targets) for kind in ("guided", "diced")]  # fmt: skip
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        passed = list(pool.map(lambda part: not part[2] or _report(*part), parts))
    failed = [f"{name} ({kind})" for (name, kind, _), good in zip(parts, passed, strict=True) if not good]
    _say(f"fuzz: {len(targets)} targets, {len(failed)} crashes{': ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _report(name: str, kind: str, runs: int) -> bool:
    """Run one target in a process of its own and print a line about it."""
    seed = int(time.time()) << 24
    command = [sys.executable, "-m", "tests.fuzz", f"--{kind}", str(runs), "--seed", str(seed), name]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    found = re.search(r"Done (\d+)", done.stderr)
    passed = done.returncode == 0 and found is not None
    inputs = f"{found[1]} inputs" if found else "ended early"
    took = time.monotonic() - started
    _say(f"{name:<10} {kind:<7} {inputs:<16} {took:5.0f} s  {'no crash' if passed else 'CRASH'}")
    if not passed:
        _say("\n".join(done.stderr.splitlines()[-40:]))
    return passed


def _guide(name: str, runs: int, files: list[str]) -> None:
    """Does not come back: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["cni", "sriovdp"]):
        from tests.fuzz.targets import list_targets
    target = list_targets()[name]
    logging.disable(logging.CRITICAL)
    _KEPT.mkdir(parents=True, exist_ok=True)
    flags = [f"-atheris_runs={runs}", f"-artifact_prefix={_KEPT}/{name}-"]
    flags += ["-max_len=2048", "-timeout=60", "-rss_limit_mb=1024", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, *files], lambda data: target.run(atheris.FuzzedDataProvider(data)))
    atheris.Fuzz()


def _dice(name: str, runs: int, seed: int) -> int:
    """Run a target; its exception ends the process, with the seed on stderr."""
    from tests.fuzz.dice import Dice
    from tests.fuzz.targets import list_targets

    target = list_targets()[name]
    logging.disable(logging.CRITICAL)
    for number in range(runs):
        try:
            target.run(Dice(seed + number))
        except BaseException:
            sys.stderr.write(f"seed {seed + number}\n")
            raise
    sys.stderr.write(f"Done {runs} inputs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
