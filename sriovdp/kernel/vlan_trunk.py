"""VLANs that a VF may tag with: the file `sriov/N/trunk` of a PF, which vendors' own drivers have and Linux does not.

Intel's (kcompat_vfd.c, vfd_trunk_store and vfd_trunk_show) takes `add 2,4-8` and `rem 2,4-8` and prints `2,4-8`;
NVIDIA's (mlx5_core/sriov_sysfs.c, trunk_store and trunk_show) takes `add 4 8`, one span at a time, and prints
`Allowed 802.1Q VLANs: 4 5 6 7 8`. Without any VLAN both let all pass.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sriovdp.errors import KernelError, VerifyError
from sriovdp.kernel.sysfs import Sysfs, read_link, read_text, write_text
from sriovdp.limits import MAX_VLAN
from sriovdp.vlans import VlanIds, write_span

_PAGE = 4096  # bytes that a file of sysfs shows at most
_SPANS = 200  # that are written at once: 10 bytes each at most, and a page in all
_NVIDIA = "mlx5_core"
_ALL = VlanIds.parse(f"0-{MAX_VLAN}")
_SPAN = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


def find_trunk(sysfs: Sysfs, vf: str, index: int) -> Path | None:
    """The file for a VF, where its PF's driver has one."""
    path = sysfs.pci(vf) / f"physfn/sriov/{index}/trunk"
    return path if path.is_file() else None


def read_trunk(path: Path) -> VlanIds:
    """The VLANs that may pass; empty for all. Raises KernelError."""
    return _read(path)[0]


def set_trunk(path: Path, wanted: VlanIds) -> None:
    """Let these VLANs pass and no other; none for all. Raises KernelError, and VerifyError when others pass then.

    What is new comes first: an empty list would let all pass.
    """
    now, is_cut = _read(path)
    driver = read_link(path.parents[2] / "driver")
    surplus = (_ALL if is_cut else now) - wanted
    for words in (*_list_words("add", wanted - now, driver), *_list_words("rem", surplus, driver)):
        write_text(path, words)
    after, is_cut = _read(path)
    last = max(after, default=0) if is_cut else MAX_VLAN
    expected = VlanIds.of(vlan for vlan in wanted if vlan <= last)
    if after != expected:
        raise VerifyError(f"the VLANs in {path} are {after or 'none'} although {expected or 'none'} were set")


def _list_words(verb: str, vlans: VlanIds, driver: str | None) -> Iterator[str]:
    if driver == _NVIDIA:
        for span in vlans.spans:
            yield f"{verb} {span.start} {span.stop - 1}"
        return
    for first in range(0, len(vlans.spans), _SPANS):
        yield f"{verb} {','.join(write_span(span) for span in vlans.spans[first : first + _SPANS])}"


def _read(path: Path) -> tuple[VlanIds, bool]:
    """What the file shows, and whether that ends at its page, where the last number may be the half of one."""
    text = read_text(str(path))
    if text is None:
        raise KernelError(f"reading {path} failed")
    is_cut = len(text) >= _PAGE - len(",4093-4094\n")
    if is_cut:
        text = text[: max(text.rfind(" "), text.rfind(","), 0)]
    numbers: set[int] = set()
    for first, last in _SPAN.findall(text.rpartition(":")[2]):
        numbers.update(range(int(first), int(last or first) + 1))
    return VlanIds.of(numbers), is_cut
