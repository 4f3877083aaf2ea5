"""SriovNetwork, SriovIBNetwork and OVSNetwork as NetworkAttachmentDefinitions, as sriov-network-operator makes them.

Key order and conditions are those of its templates (bindata/manifests/cni-config), so a network that it made stays
equal byte for byte. Where it breaks texts, this does not: `'` and blanks in texts stay.
"""

import json
from collections.abc import Iterator
from typing import Any

from sriovdp.cluster.findings import Findings
from sriovdp.cluster.json_text import decode, has_blank_in_string, indent
from sriovdp.cluster.reading import Read
from sriovdp.cluster.specs import GROUP, OVSNetworkSpec, SriovIBNetworkSpec, SriovNetworkSpec

RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
OWNER = f"{GROUP}/owner-ref"
_CNI_VERSION = "1.0.0"

NetworkSpec = SriovNetworkSpec | SriovIBNetworkSpec | OVSNetworkSpec
Pairs = Iterator[tuple[str, str]]
"""Keys and their values as JSON text."""


def render_network(network: Read[Any], prefix: str, findings: Findings) -> dict[str, Any] | None:
    """The NetworkAttachmentDefinition of a network; None when a text of it is no JSON, which is a fault.

    `prefix` is the domain of its resource. ownerReferences are not set: who applies it knows the uid.
    """
    before = len(findings.faults)
    _check(network, findings)
    if len(findings.faults) > before:
        return None
    spec, manifest = network.spec, network.manifest
    metadata = {
        "name": manifest.name,
        "namespace": spec.network_namespace or manifest.namespace,
        "annotations": {
            RESOURCE: f"{prefix}/{spec.resource_name}",
            OWNER: f"{manifest.kind}.{GROUP}/{manifest.namespace}/{manifest.name}",
        },
    }
    if not metadata["namespace"]:
        del metadata["namespace"]
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": metadata,
        "spec": {"config": indent(_write_config(manifest.name, spec))},
    }


def _write_config(name: str, spec: NetworkSpec) -> str:
    head = f'"cniVersion":{json.dumps(_CNI_VERSION)},"name":{json.dumps(name)}'
    plugin = ",".join(f"{json.dumps(key)}:{text}" for key, text in _list_pairs(spec))
    if spec.meta_plugins:
        return f'{{{head},"plugins":[{{{plugin}}},{spec.meta_plugins}]}}'
    return f"{{{head},{plugin}}}"


def _list_pairs(spec: NetworkSpec) -> Pairs:
    match spec:
        case SriovNetworkSpec():
            yield from _list_sriov(spec)
        case SriovIBNetworkSpec():
            yield from _list_given(spec, type="ib-sriov")
            yield from _list_given(spec, "capabilities")
            yield from _list_given(spec, link_state=spec.link_state)
        case OVSNetworkSpec():
            yield from _list_given(spec, type="ovs")
            yield from _list_given(spec, "capabilities")
            trunk = [_write_trunk(entry) for entry in spec.trunk]
            given = {"bridge": spec.bridge, "vlan": spec.vlan or None, "mtu": spec.mtu or None, "trunk": trunk or None}
            yield from _list_given(spec, **given, interface_type=spec.interface_type)
    yield "ipam", spec.ipam or "{}"


def _list_sriov(spec: SriovNetworkSpec) -> Pairs:
    yield from _list_given(spec, type="sriov", vlan=spec.vlan, spoofchk=spec.spoof_chk, trust=spec.trust)
    yield from _list_given(spec, vlanQoS=spec.vlan_qos, vlanProto=spec.vlan_proto)
    yield from _list_given(spec, min_tx_rate=spec.min_tx_rate, max_tx_rate=spec.max_tx_rate)
    yield from _list_given(spec, "capabilities")
    yield from _list_given(spec, link_state=spec.link_state, logLevel=spec.log_level, logFile=spec.log_file)


def _list_given(spec: NetworkSpec, *texts: str, **values: Any) -> Pairs:
    """What is given of these: texts of the spec as they are, and values as JSON."""
    for key in texts:
        if getattr(spec, key):
            yield key, getattr(spec, key)
    for key, value in values.items():
        if value is not None:
            yield key, json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write_trunk(entry: Any) -> dict[str, int]:
    pairs = (("minID", entry.min_id), ("maxID", entry.max_id), ("id", entry.id))
    return {key: value for key, value in pairs if value is not None}


def _check(network: Read[Any], findings: Findings) -> None:
    """The texts of a network must be JSON, each by itself: none may end what is around it."""
    for key, attribute in (("ipam", "ipam"), ("capabilities", "capabilities"), ("metaPlugins", "meta_plugins")):
        text = getattr(network.spec, attribute)
        if not text:
            continue
        place = network.manifest.place(("spec", key))
        try:
            value = decode(f"[{text}]" if key == "metaPlugins" else text)
        except (ValueError, RecursionError) as error:
            findings.refuse(place, str(error))
            continue
        if not all(isinstance(entry, dict) for entry in (value if key == "metaPlugins" else [value])):
            findings.refuse(place, "must be JSON objects" if key == "metaPlugins" else "must be a JSON object")
        if key == "ipam" and has_blank_in_string(text):
            findings.warn(place, "white space inside its texts stays; sriov-network-operator removes it")
    _warn(network, findings)


def _warn(network: Read[Any], findings: Findings) -> None:
    spec, place = network.spec, network.manifest.place(("spec",))
    match spec:
        case SriovNetworkSpec(max_tx_rate=int(most), min_tx_rate=int(least)) if 0 < most < least:
            findings.warn(place, f"minTxRate {least} is more than maxTxRate {most}: each ADD is refused")
        case SriovNetworkSpec(vlan=0, vlan_qos=int(qos)) if qos:
            findings.warn(place, "vlanQoS has no effect without vlan, and each ADD with it is refused")
        case OVSNetworkSpec():
            findings.warn(place, "needs the plugin ovs on the nodes, which is no part of sriovdp")
