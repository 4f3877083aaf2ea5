"""Checks of the container runtime: the CNI plugin, its networks, Multus, IPAM, CDI, locked memory."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from sriovdp.doctor.check import Finding, SkipError, check, fail, ok, warn
from sriovdp.doctor.examined import Examined
from sriovdp.doctor.kubelet import has_kubelet
from sriovdp.doctor.owners import list_processes
from sriovdp.reading import UnreadableError, parse_object

_NAME = "sriov"
_MULTUS = frozenset({"multus", "multus-shim", "multus-cni"})
_CONFS = r"\.(conf|conflist|json)$"  # libcni, ConfFiles
_KEPT = frozenset(
    (
        *("cniVersion", "name", "type", "plugins", "ipam", "binDir", "kubeconfig", "readinessindicatorfile"),
        *("delegates", "daemonSocketDir"),
    )
)
_CONTAINERD = "/etc/containerd/config.toml"
_CRI = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")  # versions 2 and 3 of its config
_OURS = b"this is the CNI plugin sriov of sriovdp"  # cni/launcher/sriov.c
_CRIO = "/etc/crio"
_MEMORY_SCALE = 1 << 10


def read_networks(examined: Examined) -> dict[str, dict[str, Any] | None]:
    """The runtime's networks by path, in its order; None for one that is no JSON. Only keys that matter here."""
    folder = examined.folders.networks
    found: dict[str, dict[str, Any] | None] = {}
    for name in examined.view.names(folder, _CONFS):
        text = examined.view.text(f"{folder}/{name}", _reduce_network)
        try:
            found[f"{folder}/{name}"] = parse_object((text or "").encode())
        except UnreadableError:
            found[f"{folder}/{name}"] = None
    return found


def _reduce_network(raw: str) -> str:
    try:
        return json.dumps(_keep(parse_object(raw.encode())))
    except UnreadableError:
        return "no JSON"


def _keep(value: Any, depth: int = 0) -> Any:
    if isinstance(value, dict):
        return {key: _keep(item, depth + 1) for key, item in value.items() if key in _KEPT} if depth < 6 else {}  # noqa: PLR2004
    if isinstance(value, list):
        return [_keep(item, depth + 1) for item in value[:100]]
    return value if isinstance(value, str) else None


def _list_plugins(network: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    listed = (network or {}).get("plugins", [network or {}])
    return [plugin for plugin in listed if isinstance(plugin, dict)] if isinstance(listed, list) else []


def _name_type(plugin: Mapping[str, Any]) -> str:
    kind = plugin.get("type")
    return kind if isinstance(kind, str) and "/" not in kind else ""


def read_containerd(examined: Examined) -> dict[str, Any]:
    """What containerd's config says of CNI and CDI: `version`, `enable_cdi`, `bin_dir`. Raises SkipError."""
    text = examined.view.text(_CONTAINERD, _reduce_containerd)
    if text is None:
        raise SkipError(f"{_CONTAINERD} is not there")
    return parse_object(text.encode())


def _reduce_containerd(raw: str) -> str:
    """As JSON, which reads the same again."""
    if raw.startswith("{"):
        return raw
    try:
        document = tomllib.loads(raw)
    except (ValueError, RecursionError):
        return '{"fault": "is no TOML"}'
    found: dict[str, Any] = {"version": document.get("version", 1)}
    plugins = document.get("plugins", {})
    for section in _CRI:
        cri = plugins.get(section, {}) if isinstance(plugins, dict) else {}
        cni = cri.get("cni", {}) if isinstance(cri, dict) else {}
        if isinstance(cri, dict) and "enable_cdi" in cri:
            found["enable_cdi"] = cri["enable_cdi"] is True
        if isinstance(cni, dict) and (folders := cni.get("bin_dirs") or cni.get("bin_dir")):
            found["bin_dir"] = [str(one) for one in (folders if isinstance(folders, list) else [folders])]
    return json.dumps(found)


def _list_bin_dirs(examined: Examined) -> list[str]:
    """Where the runtime looks for plugins."""
    try:
        named = read_containerd(examined).get("bin_dir")
    except SkipError:
        named = None
    folders = [one for one in named if isinstance(one, str)] if isinstance(named, list) else []
    return folders or [examined.folders.plugins]


def _demand_cni(examined: Examined) -> dict[str, dict[str, Any] | None]:
    networks = read_networks(examined)
    if not networks and not has_kubelet(examined):
        raise SkipError(f"this node runs no pods: {examined.folders.networks} is empty, and no kubelet has run")
    return networks


@check("cni-plugin", "runtime", "libcni, FindInPath; cni/launcher/sriov.c")
def check_plugin(examined: Examined) -> Iterator[Finding]:
    """The runtime finds the plugin `sriov`, it can be run, and it is that of sriovdp."""
    _demand_cni(examined)
    folders = _list_bin_dirs(examined)
    paths = [f"{folder}/{_NAME}" for folder in folders]
    path = next((one for one in paths if examined.view.has(one)), None)
    install = f"`sriovdp install-cni --bin-dir {folders[0]}`"
    if path is None:
        yield fail(f"{paths[0]} is not there: the runtime cannot attach a VF", install)
    elif not (examined.view.mode(path) or 0) & 0o111:
        yield fail(
            f"{path} cannot be executed: its mode is {examined.view.mode(path):o}", f"`chmod 755 {path}`, or {install}"
        )
    elif (whose := examined.view.ask("cni-plugin", lambda: [_find_maker(examined.view.place(path))])) == ["other"]:
        yield fail(f"{path} is another plugin than that of sriovdp", install)
    else:
        yield ok(f"{path} is there" + (": that of sriovdp" if whose == ["sriovdp"] else ""))


def _find_maker(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        return "sriovdp" if _OURS in file.read(4 << 20) else "other"


@check("cni-networks", "runtime", "libcni, ConfFiles; go-cni, loadFromConfDir: the first file counts")
def check_networks(examined: Examined) -> Iterator[Finding]:
    """The first network of the runtime is valid, its plugins are there, and it or Multus calls `sriov`."""
    networks, folder = _demand_cni(examined), examined.folders.networks
    if not networks:
        install = "install the cluster's network plugin"
        if examined.view.has(folder):
            yield fail(f"{folder} has no network: pods stay in ContainerCreating", install)
        else:
            yield warn(f"{folder} is not there", f"{install}; in a pod: mount that folder of the node")
        return
    first, *_ = networks
    for path, network in networks.items():
        if network is None:
            found = fail if path == first else warn
            yield found(
                f"{path} is no valid JSON: the runtime refuses it",
                f"`python3 -m json.tool {path}`; repair or remove it",
            )
    for plugin in _list_plugins(networks[first]):
        kind = _name_type(plugin)
        if kind and not any(examined.view.has(f"{place}/{kind}") for place in _list_bin_dirs(examined)):
            yield fail(f"{first}: its plugin {kind} is not in {_list_bin_dirs(examined)[0]}", f"install {kind} there")
    types = {path: {_name_type(plugin) for plugin in _list_plugins(network)} for path, network in networks.items()}
    multus = next((path for path, kinds in types.items() if kinds & _MULTUS), None)
    if multus and multus != first:
        yield fail(
            f"{multus} (Multus) comes after {first}: the runtime takes the first, and pods get no further networks",
            f"`mv {multus} {folder}/00-multus.conf`, and let its installer write it there",
        )
    elif not any(kinds & {_NAME, *_MULTUS} for kinds in types.values()):
        yield warn(f"no network in {folder} calls {_NAME}, directly or through Multus", "install Multus")


@check("multus", "runtime", "multus-cni, docs/configuration.md")
def check_multus(examined: Examined) -> Iterator[Finding]:
    """What Multus is configured with is there: its kubeconfig, its indicator file, its daemon's socket, its plugins."""
    looked = False
    for path, network in read_networks(examined).items():
        for plugin in _list_plugins(network):
            if _name_type(plugin) not in _MULTUS:
                continue
            looked = True
            other = plugin.get("binDir")
            if isinstance(other, str) and other.rstrip("/") not in _list_bin_dirs(examined):
                yield warn(
                    f"{path}: Multus looks for plugins in {other}",
                    f"`sriovdp install-cni --bin-dir {other}`, or change binDir",
                )
            for key in ("kubeconfig", "readinessindicatorfile"):
                file = plugin.get(key)
                if isinstance(file, str) and file.startswith("/") and not _has_on_node(examined, file):
                    yield fail(
                        f"{path}: {key} {file} is not there: Multus fails every pod",
                        "`kubectl -n kube-system rollout restart ds/kube-multus-ds`",
                    )
            if _name_type(plugin) == "multus-shim":
                folder = plugin.get("daemonSocketDir") or "/run/multus/socket"
                if isinstance(folder, str) and not examined.view.has(f"{folder}/multus.sock"):
                    yield fail(
                        f"{folder}/multus.sock is not there: the daemon of Multus does not run",
                        "`kubectl -n kube-system get pods -l app=multus`",
                    )
    if not looked:
        raise SkipError(f"no network in {examined.folders.networks} is of Multus")


def _has_on_node(examined: Examined, path: str) -> bool:
    """Paths of Multus in its own pod begin with /host."""
    return examined.view.has(path) or (path.startswith("/host/") and examined.view.has(path.removeprefix("/host")))


@check("ipam", "runtime", "CNI specification, section 4: delegation to IPAM plugins")
def check_ipam(examined: Examined) -> Iterator[Finding]:
    """The IPAM plugins that networks name are there, and so is what they need."""
    kinds = {
        (path, kind)
        for path, network in read_networks(examined).items()
        for plugin in _list_plugins(network)
        if (kind := _name_type(plugin["ipam"] if isinstance(plugin.get("ipam"), dict) else {}))
    }
    for path, kind in sorted(kinds):
        if not any(examined.view.has(f"{folder}/{kind}") for folder in _list_bin_dirs(examined)):
            yield fail(
                f"{path}: its IPAM plugin {kind} is not in {_list_bin_dirs(examined)[0]}", f"install {kind} there"
            )
        elif kind == "dhcp" and not examined.view.has("/run/cni/dhcp.sock"):
            yield fail(
                f"{path}: the daemon of the IPAM plugin dhcp does not run (/run/cni/dhcp.sock)",
                "`/opt/cni/bin/dhcp daemon`",
            )
        elif kind == "whereabouts" and not examined.view.has(
            f"{examined.folders.networks}/whereabouts.d/whereabouts.conf"
        ):
            yield warn(
                f"{path}: whereabouts has no config below {examined.folders.networks}/whereabouts.d",
                "install whereabouts",
            )
    if not kinds:
        raise SkipError(
            f"no network in {examined.folders.networks} names an IPAM plugin; those of pods are in the cluster"
        )


@check("cdi", "runtime", "containerd, docs/cri/config.md: enable_cdi; off by default before version 2.0")
def check_cdi(examined: Examined) -> Iterator[Finding]:
    """The runtime has CDI switched on, where the config wants it."""
    if not examined.settle().cdi:
        raise SkipError("the config does not want CDI")
    if examined.view.has(_CRIO):
        yield ok("CRI-O has CDI on since 1.23")
        return
    found = read_containerd(examined)
    section = f'[plugins."{_CRI[0]}"]'
    fix = f"write `enable_cdi = true` under `{section}` in {_CONTAINERD}, `systemctl restart containerd`"
    if found.get("fault"):
        yield fail(f"{_CONTAINERD} {found['fault']}", "`containerd config dump` names the line")
    elif found.get("enable_cdi") is False:
        yield fail(f"{_CONTAINERD}: enable_cdi is false, and the config wants CDI: pods get no devices", fix)
    elif "enable_cdi" not in found and found.get("version") != 3:  # noqa: PLR2004
        yield warn(
            f"{_CONTAINERD}: enable_cdi is not set: before containerd 2.0 CDI is off, and pods get no devices", fix
        )


@check("memlock", "runtime", "DPDK, doc/guides/linux_gsg/linux_drivers.rst; systemd.exec(5), LimitMEMLOCK")
def check_memlock(examined: Examined) -> Iterator[Finding]:
    """Programs in pods may lock the memory that vfio maps."""
    if not examined.wanted_drivers():
        raise SkipError("no VF is for a program in user space")
    runtimes = {
        name: ids for name, ids in list_processes(examined).items() if name in {"containerd", "crio", "dockerd"}
    }
    for name, ids in runtimes.items():
        for line in examined.view.lines(f"/proc/{ids[0]}/limits", "^Max locked memory"):
            limit = line.removeprefix("Max locked memory").split()[0]
            if limit != "unlimited":
                size = f"{int(limit) // _MEMORY_SCALE} KiB"
                yield warn(
                    f"{name} may lock {size} of memory, and its pods no more: vfio answers ENOMEM",
                    f"`systemctl edit {name}`: [Service] LimitMEMLOCK=infinity; then `systemctl restart {name}`",
                )
    if not runtimes:
        raise SkipError("neither containerd nor CRI-O runs here")


@check("vfio-nodes", "runtime", "drivers/vfio/vfio_main.c: /dev/vfio/vfio and /dev/vfio/GROUP")
def check_nodes(examined: Examined) -> Iterator[Finding]:
    """The device nodes of VFs on vfio-pci are there."""
    groups = sorted(
        {vf.iommu_group for _, vf in examined.vfs() if vf.iommu_group is not None and vf.driver == "vfio-pci"}
    )
    if not groups:
        raise SkipError("no VF is on vfio-pci")
    there = set(examined.view.names("/dev/vfio"))
    for name in ["vfio", *map(str, groups)]:
        if not {name, f"noiommu-{name}"} & there:
            yield fail(f"/dev/vfio/{name} is not there", "`modprobe vfio vfio-pci`; is this the node's own /dev?")


CHECKS = (check_plugin, check_networks, check_multus, check_ipam, check_cdi, check_memlock, check_nodes)
