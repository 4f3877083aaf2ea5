"""A DaemonSet's containers by the CRI, as a kubelet makes them of its manifest: mounts, rights, environment."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.lab.cri import api

# pkg/kubelet/... securitycontext/util.go of Kubernetes: what a container does not see, and what it cannot write
_MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_FIELDS = {"spec.nodeName": "lab", "status.hostIP": "127.0.0.1"}  # what the kubelet would know


def find(path: Path, kind: str) -> dict[str, Any]:
    """The only object of its kind in a rendered file."""
    [found] = [one for one in yaml.safe_load_all(path.read_text()) if one["kind"] == kind]
    return dict(found)


def describe_container(
    spec: Mapping[str, Any], container: Mapping[str, Any], config: Path, *, without: str = ""
) -> dict[str, Any]:
    """Fields of the CRI's ContainerConfig. `spec` is the pod's, `config` the folder that its ConfigMap becomes.

    Folders of the node that the pod wants to have are made. `without` is a capability to leave out.
    """
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = [_describe_mount(mount, volumes[mount["name"]], config) for mount in container["volumeMounts"]]
    environment = {
        one["name"]: one["value"] if "value" in one else _FIELDS[one["valueFrom"]["fieldRef"]["fieldPath"]]
        for one in container.get("env", ())
    }
    context = container["securityContext"]
    added = [name for name in context["capabilities"].get("add", ()) if name != without]
    security = api.LinuxContainerSecurityContext(
        capabilities=api.Capability(add_capabilities=added, drop_capabilities=context["capabilities"]["drop"]),
        namespace_options=node_options(),
        run_as_user=api.Int64Value(value=context.get("runAsUser", 0)),
        readonly_rootfs=context["readOnlyRootFilesystem"],
        no_new_privs=not context["allowPrivilegeEscalation"],
        masked_paths=_MASKED,
        readonly_paths=_READ_ONLY,
        seccomp=api.SecurityProfile(profile_type=api.SecurityProfile.ProfileType.Value("RuntimeDefault")),
    )
    return {
        "image": container["image"],
        "command": (),
        "args": [re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], arg) for arg in container["args"]],
        "envs": [api.KeyValue(key=name, value=value) for name, value in environment.items()],
        "mounts": mounts,
        "linux": api.LinuxContainerConfig(security_context=security),
    }


def node_options() -> Any:
    """The namespaces of a pod with the node's network and processes."""
    values = api.NamespaceMode.Value
    return api.NamespaceOption(network=values("NODE"), pid=values("NODE"))


def _describe_mount(mount: Mapping[str, Any], volume: Mapping[str, Any], config: Path) -> Any:
    source = config
    if "hostPath" in volume:
        source = Path(volume["hostPath"]["path"])
        if volume["hostPath"]["type"] == "DirectoryOrCreate":
            source.mkdir(parents=True, exist_ok=True)
        assert source.is_dir(), f"the node has no {source}"
    propagation = {"HostToContainer": "PROPAGATION_HOST_TO_CONTAINER"}.get(
        mount.get("mountPropagation", ""), "PROPAGATION_PRIVATE"
    )
    return api.Mount(
        container_path=mount["mountPath"],
        host_path=str(source),
        readonly=mount.get("readOnly", False),
        propagation=api.MountPropagation.Value(propagation),
    )
