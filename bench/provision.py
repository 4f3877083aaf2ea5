"""`python -m bench.provision [ROUNDS]` in a guest with `--pfs 2 --roots`: apply of 7+7 VFs against its floor.

The floor is a C program that does nothing but the writes to sysfs that this takes (autoprobe off, number of VFs,
override, probe, override clear, autoprobe on) for both PFs at once, each in its own process. It waits for no carrier,
sets no MAC, keeps no record, checks nothing.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.provision import change
from sriovdp.provision.apply import apply
from sriovdp.state.journal import Journal
from tests.lab.node import list_pfs

_DRIVERS = ("igbvf",) * 4 + ("vfio-pci",) * 2 + ("igb_uio",)
_CONFIG = """
physicalFunctions:
  - select: {{vendors: ["8086"], devices: ["10c9"]{only}}}
    numVfs: 7
    vfs: [{{range: "0-3", driver: kernel}}, {{range: "4-5", driver: vfio-pci}}, {{range: "6", driver: igb_uio}}]
"""
_FLOOR = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void put(const char *folder, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, O_WRONLY);
    if (file < 0 || write(file, text, strlen(text)) < 0) { perror(path); exit(1); }
    close(file);
}

/* floor DRIVERS PF...: drivers separated by commas */
int main(int count, char **arguments)
{
    for (int number = 2; number < count; number++) {
        if (fork())
            continue;
        char pf[256], vf[300], real[512], vfs[16], *rest = strdup(arguments[1]), *driver;
        int total = 1;
        for (char *at = rest; *at; at++)
            total += *at == ',';
        snprintf(pf, sizeof pf, "/sys/bus/pci/devices/%s", arguments[number]);
        snprintf(vfs, sizeof vfs, "%d", total);
        put(pf, "sriov_drivers_autoprobe", "0");
        put(pf, "sriov_numvfs", vfs);
        for (int index = 0; (driver = strsep(&rest, ",")); index++) {
            snprintf(vf, sizeof vf, "%s/virtfn%d", pf, index);
            ssize_t length = readlink(vf, real, sizeof real - 1);
            real[length < 0 ? 0 : length] = 0;
            put(vf, "driver_override", driver);
            put("/sys/bus/pci", "drivers_probe", strrchr(real, '/') + 1);
            put(vf, "driver_override", "\n");
        }
        put(pf, "sriov_drivers_autoprobe", "1");
        return 0;
    }
    int status, failed = 0;
    while (wait(&status) > 0)
        failed |= status;
    return !!failed;
}
"""


def main() -> None:
    """Measure and print, in seconds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    pfs = list_pfs()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        root = Path(folder)
        floor = build_floor(root)
        both, one = (
            parse(_CONFIG.format(only=""), "bench"),
            parse(_CONFIG.format(only=f', pciAddresses: ["{pfs[0].name}"]'), "bench"),
        )
        cases: dict[str, Callable[[], float]] = {
            "C program, sysfs writes only, both PFs at once": lambda: _run_floor(floor, pfs),
            "C program, one PF": lambda: _run_floor(floor, pfs[:1]),
            "apply, both PFs": lambda: _run_apply(both, root),
            "apply, one PF": lambda: _run_apply(one, root),
            "apply with nothing to do": lambda: _run_again(both, root),
        }
        samples: dict[str, list[float]] = {name: [] for name in cases}
        waits: list[float] = []
        for _ in range(rounds):
            for name, run in cases.items():
                if "nothing" not in name:
                    _remove_vfs(pfs)
                samples[name].append(run())
            waits.append(_wait_alone(both, root, pfs))
        _remove_vfs(pfs)
    for name, times in samples.items():
        print(f"{name:50} median {statistics.median(times):6.2f} s  min {min(times):6.2f}  max {max(times):6.2f}")
    print(f"{'of apply, both PFs: waiting for carriers':50} median {statistics.median(waits):6.2f} s")
    median = {name: statistics.median(times) for name, times in samples.items()}
    names = list(cases)
    print(f"apply against the floor: {median[names[2]] / median[names[0]]:.2f} times, {rounds} rounds")
    print(f"two PFs against one: {median[names[2]] / median[names[3]]:.2f} times")


def build_floor(root: Path) -> Path:
    """Build the C program: `floor DRIVERS PF...`, with a driver for each VF of each PF, separated by commas."""
    source, program = root / "floor.c", root / "floor"
    source.write_text(_FLOOR)
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    return program


def _remove_vfs(pfs: list[Path]) -> None:
    """No VFs, and each PF's link back: what it lost by the last round is not counted for the next."""
    for pf in pfs:
        (pf / "sriov_numvfs").write_text("0")
    deadline = time.monotonic() + 15
    for pf in pfs:
        netdev = next((pf / "net").iterdir())
        subprocess.run(["ip", "link", "set", netdev.name, "up"], check=True)
        while (netdev / "carrier").read_text() != "1\n" and time.monotonic() < deadline:
            time.sleep(0.1)


def _run_floor(program: Path, pfs: list[Path]) -> float:
    started = time.perf_counter()
    subprocess.run([program, ",".join(_DRIVERS), *(pf.name for pf in pfs)], check=True)
    return time.perf_counter() - started


def _run_apply(config: Config, root: Path) -> float:
    started = time.perf_counter()
    assert apply(config, Sysfs(), Journal(root / "journal")).steps
    return time.perf_counter() - started


def _run_again(config: Config, root: Path) -> float:
    apply(config, Sysfs(), Journal(root / "journal"))
    started = time.perf_counter()
    assert not apply(config, Sysfs(), Journal(root / "journal")).steps
    return time.perf_counter() - started


def _wait_alone(config: Config, root: Path, pfs: list[Path]) -> float:
    """The longest time that a PF's change spends waiting for its carrier."""
    _remove_vfs(pfs)
    spent: dict[str, float] = {}
    wait = change.Change.wait_for_carrier

    def timed(self: change.Change) -> None:
        started = time.perf_counter()
        wait(self)
        spent[self.pf] = spent.get(self.pf, 0.0) + time.perf_counter() - started

    change.Change.wait_for_carrier = timed  # type: ignore[method-assign]
    try:
        apply(config, Sysfs(), Journal(root / "journal"))
    finally:
        change.Change.wait_for_carrier = wait  # type: ignore[method-assign]
    return max(spent.values())


if __name__ == "__main__":
    main()
