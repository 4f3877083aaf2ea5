"""Checks of the kubelet: its folders and sockets, what it answers, and its policies."""

import json
import re
from collections.abc import Iterator
from typing import Any

from sriovdp.doctor.check import Finding, SkipError, check, fail, ok, warn
from sriovdp.doctor.examined import Examined
from sriovdp.reading import UnreadableError, parse_object

_SIGNS = ("config.yaml", "device-plugins", "pki", "pods", "plugins_registry", "pod-resources")
_POLICIES = ("topologyManagerPolicy", "cpuManagerPolicy", "memoryManagerPolicy", "featureGates")
_ALIGNED = frozenset({"restricted", "single-numa-node"})
_HASHED = re.compile(r"sriovdp-[0-9a-f]{12}-[0-9a-f]{8}\.sock")  # a long name: sriovdp/kubelet/sockets.py, name_socket
_RUNNING = "`systemctl status kubelet`, `journalctl -u kubelet`; in a pod: mount that folder of the node"


def has_kubelet(examined: Examined) -> bool:
    """Whether a kubelet has run on this node."""
    return bool(examined.view.names(examined.folders.kubelet, f"^({'|'.join(_SIGNS)})$"))


def _demand_kubelet(examined: Examined) -> str:
    """The kubelet's folder. Raises SkipError where no kubelet has ever run."""
    folder = examined.folders.kubelet
    if not has_kubelet(examined):
        raise SkipError(f"no kubelet has run on this node: {folder} is empty or not there")
    return folder


@check("kubelet", "kubelet", "k8s.io/kubelet, pkg/apis/deviceplugin/v1beta1/constants.go")
def check_socket(examined: Examined) -> Iterator[Finding]:
    """The kubelet runs, and the folder of device plugins is that of this node."""
    path = f"{_demand_kubelet(examined)}/device-plugins/kubelet.sock"
    if examined.view.has(path):
        yield ok(f"{path} is there")
    else:
        yield fail(f"{path} is not there: the kubelet does not run, or this is not its folder", _RUNNING)


@check("device-plugin", "kubelet", "k8s.io/kubelet, pkg/apis/deviceplugin/v1beta1")
def check_plugin(examined: Examined) -> Iterator[Finding]:
    """The agent offers each pool of the config to the kubelet."""
    folder, config = _demand_kubelet(examined), examined.settle()
    if not examined.view.has(f"{examined.folders.run}/agent.sock"):
        raise SkipError("the agent does not run")
    sockets = [
        name
        for place in ("device-plugins", "plugins_registry")
        for name in examined.view.names(f"{folder}/{place}", r"^sriovdp-.*\.sock$")
    ]
    for pool in config.pools:
        prefix = f"sriovdp-{pool.resource.replace('/', '_')}-"
        if not any(name.startswith(prefix) or _HASHED.fullmatch(name) for name in sockets):
            yield fail(f"{pool.resource}: the agent offers it to no kubelet", "`sriovdp status`, and the agent's log")


@check("pod-resources", "kubelet", "k8s.io/kubelet, pkg/apis/podresources/v1; feature gates KubeletPodResources*")
def check_pod_resources(examined: Examined) -> Iterator[Finding]:
    """The kubelet reports which pod has which device."""
    path = f"{_demand_kubelet(examined)}/pod-resources/kubelet.sock"
    if not examined.view.has(path):
        yield fail(f"{path} is not there: VFs of running pods are not known", _RUNNING)
        return
    answer = examined.view.ask("pod-resources", examined.peers.kubelet)
    if answer[:1] not in ([], ["ok"]):
        yield fail(f"{path}: {answer[0]}", _RUNNING)
    else:
        yield ok(f"pods have {max(len(answer) - 1, 0)} devices by the kubelet")


@check("pod-devices", "kubelet", "k8s.io/kubelet, pkg/apis/podresources/v1, List")
def check_pod_devices(examined: Examined) -> Iterator[Finding]:
    """The kubelet's pods and the journal agree on who has which VF."""
    _demand_kubelet(examined)
    answer = examined.view.ask("pod-resources", examined.peers.kubelet)
    if answer[:1] != ["ok"]:
        raise SkipError("the kubelet did not answer")
    given = dict(line.split(" ", 1) for line in answer[1:] if " " in line)
    for entry in examined.surveyed[0]:
        pod = given.get(entry.device)
        if pod and entry.pod and pod != entry.pod:
            yield warn(
                f"{entry.device}: the kubelet gave it to pod {pod}, and {entry.owner} has it by the journal",
                "`sriovdp attachments --verify`, then `sriovdp attachments --repair`",
            )


def _read_policies(examined: Examined) -> dict[str, Any]:
    text = examined.view.text(f"{examined.folders.kubelet}/config.yaml", _reduce_policies)
    return parse_object(text.encode()) if text else {}


def _reduce_policies(raw: str) -> str:
    """As JSON, which reads the same again."""
    import yaml  # noqa: PLC0415 - slow to import

    try:
        document = yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnreadableError(f"the kubelet's config is no YAML: {str(error).splitlines()[0]}") from error
    known = document if isinstance(document, dict) else {}
    return json.dumps({key: known[key] for key in _POLICIES if isinstance(known.get(key), str | dict)}, default=str)


@check("kubelet-policies", "kubelet", "KubeletConfiguration v1beta1; Topology Manager, Device Manager")
def check_policies(examined: Examined) -> Iterator[Finding]:
    """The kubelet's policies fit the devices: with alignment by NUMA node that of each PF is known."""
    _demand_kubelet(examined)
    policies = _read_policies(examined)
    topology = policies.get("topologyManagerPolicy", "none")
    lost = [pf.name for pf in examined.sriov_pfs() if pf.numa_node is None]
    if topology in _ALIGNED and lost and len(examined.view.names("/sys/devices/system/node", r"^node\d+$")) > 1:
        yield warn(
            f"topologyManagerPolicy is {topology}, and the NUMA node of {', '.join(lost)} is not known",
            "update the machine's firmware; its VFs are then on a NUMA node",
        )
    gates = policies.get("featureGates")
    for gate in ("DevicePlugins", "KubeletPodResources"):
        if isinstance(gates, dict) and gates.get(gate) is False:
            yield fail(
                f"the kubelet's feature gate {gate} is off", f"remove it from {examined.folders.kubelet}/config.yaml"
            )
    yield ok(f"topologyManagerPolicy {topology}, cpuManagerPolicy {policies.get('cpuManagerPolicy', 'none')}")


CHECKS = (check_socket, check_plugin, check_pod_resources, check_pod_devices, check_policies)
