"""What tests of one file leave in the guest, and what the next file must not find: it is taken away, and checked.

A file may load drivers, make VFs and files of a node, and change its PFs. Afterwards the machine is as it booted.
"""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.lab.vm import VNIC_VARIABLE

_FOLDERS = (
    *("/etc/cni/net.d", "/etc/cdi", "/etc/sriovdp"),  # containerd watches net.d itself: emptied, not removed
    *("/run/cdi", "/run/k8s.cni.cncf.io", "/run/netns", "/run/sriovdp"),
    *("/var/lib/cni", "/var/lib/kubelet", "/var/lib/sriovdp"),
)
_VF_DRIVERS = ("igbvf", "vfio-pci", "igb_uio", "uio_pci_generic")
_LOAD_CARDS = '. /run/lab/settings; sh "$VNIC_LOAD" "$VNIC_FOLDER" "$VNIC" wire=$WIRE'  # as guest.sh does
_LOOKS = 100  # at processes that are about to end
_PAUSE = 0.1  # seconds


class Leftovers:
    """What there was when the machine was fresh."""

    def __init__(self) -> None:
        self._netdevs = _list_netdevs()
        self._processes = _list_processes()

    def remove(self) -> None:
        """Take away what came since. Raises AssertionError with what cannot be taken away."""
        for namespace in _list(Path("/run/netns")):
            _run("ip", "netns", "delete", namespace.name)
        self._reset_nics()
        _run("dmesg", "--clear")  # tests count its lines
        for folder in _FOLDERS:
            for path in _list(Path(folder)):
                _remove(path)
        for _ in range(_LOOKS):
            if not (left := self._list_left()):
                return
            time.sleep(_PAUSE)
        self._processes |= _list_processes()  # an error of this file, not of each one after it
        raise AssertionError(f"the tests of this file left in the guest, or took from it: {', '.join(left)}")

    def _reset_nics(self) -> None:
        """PFs as their drivers make them, without VFs, and drivers of VFs not loaded."""
        if VNIC_VARIABLE in os.environ:
            _run("sh", "-c", _LOAD_CARDS)
        for numvfs in Path("/sys/bus/pci/devices").glob("*/sriov_numvfs"):
            if numvfs.read_text() != "0\n":
                numvfs.write_text("0")
        loaded = [name for name in _VF_DRIVERS if Path("/sys/module", name.replace("-", "_")).exists()]
        _run("modprobe", "-r", *loaded, "igb")
        _run("modprobe", "igb")

    def _list_left(self) -> list[str]:
        netdevs = [f"netdev {name}" for name in sorted(_list_netdevs() ^ self._netdevs)]
        return netdevs + [f"process {one}" for one in sorted(_list_processes() - self._processes)]


def _list_netdevs() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def _list_processes() -> set[str]:
    """Programs that run; threads of the kernel, which come and go, have no file."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.add(f"{path.name} ({(path / 'exe').readlink()})")
    return found


def _list(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
