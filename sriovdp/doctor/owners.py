"""Checks of other programs that take VFs: network managers, udev rules, other device managers, drivers' own options."""

import re
from collections.abc import Iterator
from functools import partial

from sriovdp.doctor.check import Finding, check, fail, ok, warn
from sriovdp.doctor.examined import Examined, name_vf_of
from sriovdp.kernel.sysfs import list_names, read_text
from sriovdp.model import PhysicalFunction, VirtualFunction, is_userspace

_NM = "NetworkManager"
_NM_FOLDERS = ("/etc/NetworkManager/conf.d", "/run/NetworkManager/conf.d", "/usr/lib/NetworkManager/conf.d")
_NM_LINES = r"^\s*(\[|unmanaged-devices|managed|match-device|keyfile)"
_RULES = ("/etc/udev/rules.d", "/run/udev/rules.d")
_RULE_LINES = r"sriov_numvfs|driver_override|drivers_probe|new_id|NM_UNMANAGED|\bNAME\s*[:+]?="
_TRUE = frozenset({"true", "1", "yes", "on"})
_WATCHED = (
    "NetworkManager",
    "lldpad",
    "libvirtd",
    "openibd",
    "containerd",
    "crio",
    "dockerd",
    "kubelet",
    "multus-daemon",
)
_OPERATOR = ("/etc/sriov-operator", "/etc/sriov-network-operator")
_UNITS = r"^sriov.*\.service$"
_DRA = "sriovnetwork.k8snetworkplumbingwg.io"


def list_processes(examined: Examined) -> dict[str, list[str]]:
    """Process ids of programs that matter to VFs, by their names."""
    found: dict[str, list[str]] = {}
    for line in examined.view.ask("processes", partial(_list_watched, examined.view.place("/proc"))):
        name, _, process = line.partition(" ")
        found.setdefault(name, []).append(process)
    return found


def _list_watched(proc: str) -> Iterator[str]:
    for process in filter(str.isdecimal, list_names(proc)):
        name = read_text(f"{proc}/{process}/comm")
        if name in _WATCHED or (name or "").startswith("sriov-network"):
            yield f"{name} {process}"


@check(
    "network-manager", "owners", "NetworkManager.conf(5), unmanaged-devices; nm-config.c, the state files of devices"
)
def check_network_manager(examined: Examined) -> Iterator[Finding]:
    """NetworkManager leaves VFs alone."""
    places = [(pf, vf) for pf, vf in examined.vfs() if vf.netdev]
    managed = [(pf, vf) for pf, vf in places if _is_managed(examined, vf)]
    drivers = sorted({vf.driver for _, vf in examined.vfs() if vf.driver and not is_userspace(vf.driver)})
    spec = ";".join(f"driver:{name}" for name in drivers) or "driver:iavf;driver:igbvf;driver:ixgbevf;driver:mlx5_core"
    write = f"printf '[keyfile]\\nunmanaged-devices+={spec}\\n' > /etc/NetworkManager/conf.d/99-sriovdp.conf"
    fix = f"`{write}`, then `systemctl reload NetworkManager`"
    for pf, vf in managed:
        yield warn(
            f"{name_vf_of(pf, vf)}: NetworkManager manages {vf.netdev.name if vf.netdev else ''}: it may configure it",
            fix,
        )
    if managed or _NM not in list_processes(examined):
        return
    if not _list_unmanaged(examined) and not _has_rule(examined, "NM_UNMANAGED"):
        yield warn("NetworkManager runs, and no unmanaged-devices keeps it from new VFs", fix)


def _is_managed(examined: Examined, vf: VirtualFunction) -> bool:
    number = vf.netdev.ifindex if vf.netdev else 0
    lines = examined.view.lines(f"/run/NetworkManager/devices/{number}", r"^managed=")
    return any(line.partition("=")[2].strip().lower() in _TRUE for line in lines)


def _list_unmanaged(examined: Examined) -> list[str]:
    paths = ["/etc/NetworkManager/NetworkManager.conf"]
    paths += [f"{folder}/{name}" for folder in _NM_FOLDERS for name in examined.view.names(folder, r"\.conf$")]
    lines = [line.strip() for path in paths for line in examined.view.lines(path, _NM_LINES)]
    return [line for line in lines if re.match(r"unmanaged-devices\s*\+?=\s*\S|managed\s*=\s*(0|false|no)\b", line)]


@check("networkd", "owners", "systemd.network(5); sd-network, /run/systemd/netif/links")
def check_networkd(examined: Examined) -> Iterator[Finding]:
    """systemd-networkd does not configure VFs."""
    for pf, vf in examined.vfs():
        if vf.netdev is None:
            continue
        lines = examined.view.lines(f"/run/systemd/netif/links/{vf.netdev.ifindex}", "^(ADMIN_STATE|NETWORK_FILE)=")
        state = dict(line.partition("=")[::2] for line in lines)
        if state.get("ADMIN_STATE", "unmanaged") not in {"unmanaged", "pending", "initialized", "linger"}:
            file = state.get("NETWORK_FILE", "a .network file")
            yield warn(
                f"{name_vf_of(pf, vf)}: systemd-networkd configures {vf.netdev.name} by {file}",
                f"let [Match] of {file} leave VFs out, or put a file with `Unmanaged=yes` in [Link] before it",
            )
    for name in examined.view.names("/etc/systemd/network", r"\.(link|network)$"):
        if examined.view.lines(f"/etc/systemd/network/{name}", r"^\s*(\[SR-IOV\]|SR-IOVVirtualFunctions=)"):
            yield warn(
                f"/etc/systemd/network/{name}: systemd makes or sets up VFs by it, beside sriovdp",
                "remove its SR-IOV lines, or write externallyManaged: true for that PF",
            )


def _list_rules(examined: Examined) -> Iterator[tuple[str, str]]:
    for folder in _RULES:
        for name in examined.view.names(folder, r"\.rules$"):
            for line in examined.view.lines(f"{folder}/{name}", _RULE_LINES):
                if not line.lstrip().startswith("#"):
                    yield f"{folder}/{name}", line


def _has_rule(examined: Examined, word: str) -> bool:
    return any(word in line for _, line in _list_rules(examined))


@check("udev-rules", "owners", "udev(7); drivers/pci/iov.c, sriov_numvfs")
def check_rules(examined: Examined) -> Iterator[Finding]:
    """No udev rule makes VFs, binds them to drivers, or gives all of them names of its own."""
    for path, line in _list_rules(examined):
        if "sriov_numvfs" in line:
            yield warn(f"{path}: a rule makes VFs by itself: {_shorten(line)}", "remove it, `udevadm control --reload`")
        elif re.search("driver_override|drivers_probe|new_id", line):
            yield warn(
                f"{path}: a rule binds devices to drivers: {_shorten(line)}", "remove it, `udevadm control --reload`"
            )
        elif re.search(r'\bNAME\s*[:+]?=\s*"', line) and not re.search(
            r"ATTRS?\{(address|phys_|dev_port)|ENV\{ID_PATH", line
        ):
            yield warn(
                f"{path}: a rule renames interfaces without saying which card: {_shorten(line)}",
                'let it match one port, for example by ATTR{address}=="…", `udevadm control --reload`',
            )


def _shorten(line: str) -> str:
    text = " ".join(line.split())
    return text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004


@check("names", "owners", "net/core/dev.c, dev_change_name: EEXIST for another interface's altname")
def check_names(examined: Examined) -> Iterator[Finding]:
    """No interface is being renamed, and no altname is the name of another one."""
    netdevs = [one.netdev for one in _list_functions(examined) if one.netdev]
    names = {netdev.name for netdev in netdevs}
    for netdev in netdevs:
        if re.fullmatch(r"rename\d+", netdev.name):
            yield warn(
                f"{netdev.name}: udev could not finish renaming it", "`udevadm info /sys/class/net/" + netdev.name + "`"
            )
        for clash in names & set(netdev.altnames):
            yield warn(
                f"{netdev.name}: its altname {clash} is another interface",
                f"`ip link property del dev {netdev.name} altname {clash}`",
            )


def _list_functions(examined: Examined) -> Iterator[PhysicalFunction | VirtualFunction]:
    yield from examined.node.pfs
    yield from (vf for _, vf in examined.vfs())


@check("other-managers", "owners", "sriov-network-operator, sriov-network-device-plugin, dra-driver-sriov: their files")
def check_managers(examined: Examined) -> Iterator[Finding]:
    """No other program manages the VFs of this node."""
    running = [name for name in list_processes(examined) if name.startswith("sriov-network")]
    if running:
        yield fail(
            "the daemon of sriov-network-operator runs: it undoes what sriovdp sets up",
            "take this node out of the operator: remove its label from the nodeSelector of SriovOperatorConfig",
        )
    elif left := [path for path in _OPERATOR if examined.view.has(path)]:
        yield warn(
            f"{left[0]}: sriov-network-operator was here", "look whether its services are off; then remove that folder"
        )
    for folder in ("/etc/systemd/system", "/usr/lib/systemd/system"):
        for name in examined.view.names(folder, _UNITS):
            if not name.startswith("sriovdp"):
                yield warn(f"{folder}/{name}: another service sets up SR-IOV at boot", f"`systemctl disable {name}`")
    yield from _check_sockets(examined)
    if "lldpad" in list_processes(examined):
        yield ok("lldpad runs: with DCB on, some NICs refuse rates of VFs")


def _check_sockets(examined: Examined) -> Iterator[Finding]:
    """The Go plugin's sockets have the resource's name, where ours begin with our own."""
    kubelet = examined.folders.kubelet
    resources = (
        {pool.resource.replace("/", "_"): pool.resource for pool in examined.config.config.pools}
        if examined.config
        else {}
    )
    for folder in (f"{kubelet}/device-plugins", f"{kubelet}/plugins_registry"):
        for name in examined.view.names(folder, r"\.sock$"):
            if (resource := resources.get(name.removesuffix(".sock"))) is not None:
                yield fail(
                    f"{folder}/{name}: another device plugin offers {resource}",
                    "remove the DaemonSet of sriov-network-device-plugin from this node, then that socket",
                )
    if examined.view.has(f"{kubelet}/plugins/{_DRA}"):
        yield warn(f"{kubelet}/plugins/{_DRA}: dra-driver-sriov serves this node too", "let one of both have each PF")


CHECKS = (check_network_manager, check_networkd, check_rules, check_names, check_managers)
