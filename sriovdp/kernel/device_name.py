"""The name of a PCI function in log lines and errors: `eth0 VF 3 (0000:3b:02.3)`, of a PF `eth0 (0000:3b:00.0)`.

It is read from sysfs when a text is written, never before: a pod does not wait for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from sriovdp.errors import SriovdpError, naming
from sriovdp.kernel.netdevs import find_netdev
from sriovdp.kernel.sysfs import Sysfs, list_names, read_link
from sriovdp.model import escape_unprintable, name_vf

_A = TypeVar("_A", bound=str)
_P = ParamSpec("_P")
_T = TypeVar("_T")

_indices: dict[str, int] = {}  # of VFs by address, where they were last; each is checked before it is used


@dataclass(frozen=True, slots=True)
class DeviceName:
    """The function with that address. `str` reads its name now; a function that is gone is its address alone."""

    sysfs: Sysfs
    address: str

    def __str__(self) -> str:
        try:
            return _read_name(self.sysfs, self.address)
        except SriovdpError:
            return self.address


def _read_name(sysfs: Sysfs, address: str) -> str:
    path = sysfs.pci(address)
    pf = read_link(path / "physfn")
    if pf is None:
        name = find_netdev(sysfs, address)
        return escape_unprintable(f"{name} ({address})") if name else address
    index = find_vf_index(f"{path}/physfn", address)
    return address if index is None else name_vf(find_netdev(sysfs, pf) or pf, index, address)


def find_vf_index(pf_path: str, address: str) -> int | None:
    """Index of a VF below its PF's folder; None when it is not one of this PF's. Raises KernelError."""
    index = _indices.get(address, 0)
    if read_link(f"{pf_path}/virtfn{index}") == address:
        return index
    for link in list_names(pf_path):
        if link.startswith("virtfn") and read_link(f"{pf_path}/{link}") == address:
            index = _indices[address] = int(link.removeprefix("virtfn"))
            return index
    return None


def named(function: Callable[Concatenate[Sysfs, _A, _P], _T]) -> Callable[Concatenate[Sysfs, _A, _P], _T]:
    """Let the errors of what works on one function start with its name."""

    @wraps(function)
    def call(sysfs: Sysfs, address: _A, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with naming(DeviceName(sysfs, address)):
            return function(sysfs, address, *args, **kwargs)

    return call
