"""What a plan says of drivers: settings that one may not take, and VFs whose MAC it does not take. No I/O."""

from collections.abc import Collection, Iterator

from sriovdp.config.ranges import VfIndices
from sriovdp.config.values import PfConfig
from sriovdp.kernel.abilities import TABLE, list_wanted
from sriovdp.model import PhysicalFunction
from sriovdp.provision.settings import is_derived
from sriovdp.provision.steps import SetAdminMac, SetVf, Step


def warn_of_lacks(pf: PhysicalFunction, steps: Collection[Step]) -> Iterator[str]:
    """Settings that steps make and that the PF's driver lacks by its source; the kernel is asked all the same."""
    driver = TABLE.get(pf.driver or "")
    if driver is None:
        return
    names = dict.fromkeys(name for step in steps for name in _list_names(step))
    if lacking := driver.list_lacking(names):
        yield f"{pf.name}: {driver.driver} takes no {', '.join(lacking)} of VFs in Linux 6.12 ({driver.source})"


def _list_names(step: Step) -> Collection[str]:
    if isinstance(step, SetAdminMac):
        return () if step.derived else ("mac",)
    return list_wanted(step.changes) if isinstance(step, SetVf) else ()


def warn_of_refused(
    pf: PhysicalFunction, entry: PfConfig, indices: Collection[int], verb: str = "takes no"
) -> Iterator[str]:
    """One sentence for all VFs whose MAC or GUID, which this program makes, the PF's driver does not take or list."""
    derived = [index for index in indices if is_derived(entry.vf(index), index)]
    if not derived:
        return
    is_infiniband = pf.traits.link_type == "infiniband"
    which = f"{pf.name}: its driver {pf.driver} {verb} {'GUID' if is_infiniband else 'admin MAC'} of VF "
    which += str(VfIndices.parse(",".join(map(str, derived))))
    if is_infiniband:
        yield f"{which}: it keeps what it has"
    else:
        yield f"{which}: the netdev of a VF on a kernel driver gets the stable MAC, any other VF keeps the MAC it has"
