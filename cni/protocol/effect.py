"""Keys of a network that have no effect as it is: in this mode, or without another key."""

from collections.abc import Iterator
from typing import Any

from cni.protocol.netconf import NetConf
from cni.protocol.network_keys import BY_NAME, DEFAULT_LEVEL, KEYS, Key

_NOTHING: tuple[Any, ...] = (None, "", False, [], {})
_DEFAULTS = {"dad": "optimistic", "logLevel": DEFAULT_LEVEL}


def list_idle_keys(conf: NetConf, mode: str | None) -> list[str]:
    """A sentence for each. `mode` is `kernel` or `dpdk`, None when it is not known."""
    given = [key for key in KEYS if conf.raw.get(key.name) not in (*_NOTHING, _DEFAULTS.get(key.name))]
    in_mode = [
        f"{key.name} has no effect in DPDK mode: the VF has no netdev in the pod"
        for key in given
        if key.kernel_only and mode == "dpdk"
    ]
    return [*in_mode, *_list_lonely(conf, given)]


def _list_lonely(conf: NetConf, given: list[Key]) -> Iterator[str]:
    for key in given:
        if key.needs and conf.raw.get(key.needs) in _NOTHING:
            yield f"{key.name} has no effect without {key.needs}"
    if conf.raw.get("vf") is not None and (conf.device or not conf.pf):
        yield "vf has no effect with a deviceID" if conf.device else "vf has no effect without if0"
    if BY_NAME["master"] in given and (conf.device or conf.raw.get("if0")):
        yield f"master has no effect with {'if0' if conf.raw.get('if0') else 'a deviceID'}"
