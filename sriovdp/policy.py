"""From the config file's `cni` to the policy that the CNI plugin asks, which itself does not know the file."""

from pathlib import Path

from cni.policy import Policy
from sriovdp.config.values import Config


def make_policy(config: Config) -> Policy:
    """What this node allows to networks."""
    given, allow = config.cni, config.cni.allow
    return Policy(
        log_folders=tuple(map(Path, given.log_folders)),
        device_info_folders=tuple(map(Path, given.device_info_folders)),
        state_folders=tuple(map(Path, given.state_folders)),
        trust=allow.trust,
        spoofchk_off=allow.spoofchk_off,
        promisc=allow.promisc,
        allmulti=allow.allmulti,
        mac=allow.mac,
        guid=allow.guid,
        drivers=frozenset(allow.drivers),
        vlans=tuple((span.start, span.stop - 1) for span in allow.vlans.spans),
        bridges=frozenset(allow.bridges),
        sysctls=allow.sysctls,
        allocation=given.allocation,
    )
