"""`sriovdp install-cni`: put the launcher where the container runtime looks for CNI plugins."""

import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import click

from cni.protocol.keys import TYPES
from sriovdp.cli.options import FOLDER
from sriovdp.errors import SriovdpError
from sriovdp.reading import UnreadableError, parse_object

_NAME, _IB_NAME = TYPES  # the plugin's `type`
_DELEGATING = {"multus", "multus-shim", "multus-cni"}  # these call our plugin for a pod's further networks
_CONF_SUFFIXES = {".conf", ".conflist", ".json"}  # as libcni has them, ConfFiles
_VERSION_TIMEOUT = 20.0  # seconds
_CONTAINERD_PATHS = (("io.containerd.grpc.v1.cri", "bin_dir"), ("io.containerd.cri.v1.runtime", "bin_dirs"))


@click.command(epilog="Example: sriovdp install-cni --bin-dir /var/lib/cni/bin")
@click.option(
    "--bin-dir",
    type=FOLDER,
    default=Path("/opt/cni/bin"),
    show_default=True,
    help="Folder of the runtime's CNI plugins.",
)
@click.option(
    "--conf-dir",
    type=FOLDER,
    default=Path("/etc/cni/net.d"),
    show_default=True,
    help="Folder of the runtime's networks.",
)
@click.option(
    "--containerd-config",
    "containerd",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/containerd/config.toml"),
    show_default=True,
    help="Checked for another folder of plugins, if it exists.",
)
@click.option(
    "--launcher",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Install this executable. [default: the one that comes with sriovdp]",
)
def command(bin_dir: Path, conf_dir: Path, containerd: Path, launcher: Path | None) -> None:
    """Install the CNI plugin as `sriov` and `ib-sriov` for the container runtime. Pods may start and stop meanwhile.

    The new plugin is tried in its folder before it replaces the old one, which is kept as `sriov.previous` or
    `ib-sriov.previous`. A warning names each reason why the runtime would not find it.
    """
    source = launcher or find_launcher()
    for target in (bin_dir / _NAME, bin_dir / _IB_NAME):
        installed = install(source, target)
        click.echo(f"{target}: {'installed' if installed else 'already installed, nothing changed'}")
    for warning in (*_check_networks(conf_dir, bin_dir), *_check_containerd(containerd, bin_dir)):
        click.echo(f"warning: {warning}", err=True)


def find_launcher() -> Path:
    """Find the built launcher, in the installed package or in the checkout. Raises SriovdpError if there is none."""
    package = Path(str(resources.files("cni")))
    for candidate in (package / "launcher" / _NAME, package.parent / "build" / _NAME):
        if candidate.is_file():
            return candidate
    raise SriovdpError(
        f"the CNI launcher is neither in {package / 'launcher'} nor in {package.parent / 'build'}",
        hint="build it with `make setup`, or name one with --launcher",
    )


def install(launcher: Path, target: Path) -> bool:
    """Copy the launcher to its place; False if the same one is there. Raises SriovdpError; nothing is changed then.

    A running executable cannot be written to (ETXTBSY), so the new one is another file that takes over the name.
    """
    try:
        if _is_same(launcher, target):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
            new = Path(folder) / target.name
            _copy(launcher, new)
            _try(new)
            if target.exists():
                _keep(target, Path(folder) / "previous")
            new.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise SriovdpError(
            f"installing the CNI launcher as {target} failed: {error}",
            hint="check that the folder is writable and its disk has space",
        ) from error
    return True


def _is_same(launcher: Path, target: Path) -> bool:
    if not target.is_file() or target.is_symlink():
        return False
    return os.access(target, os.X_OK) and launcher.read_bytes() == target.read_bytes()


def _copy(launcher: Path, new: Path) -> None:
    with launcher.open("rb") as source, new.open("xb") as copy:
        shutil.copyfileobj(source, copy)
        copy.flush()
        os.fsync(copy.fileno())
    new.chmod(0o755)


def _keep(target: Path, temporary: Path) -> None:
    """Give the installed one a second name; it stays installed until the new one takes over."""
    if target.is_symlink():
        temporary.symlink_to(target.readlink())
    else:
        temporary.hardlink_to(target)
    temporary.replace(target.with_name(f"{target.name}.previous"))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try(new: Path) -> None:
    """Ask it for VERSION in its folder: that fails on another architecture or a mount with noexec."""
    try:
        done = subprocess.run(
            [new],
            env={"CNI_COMMAND": "VERSION"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_TIMEOUT,
            check=False,
        )
        versions = parse_object(done.stdout).get("supportedVersions") if done.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired, UnreadableError) as error:
        raise SriovdpError(
            f"the CNI launcher does not run in {new.parent.parent}: {error}",
            hint="build it for this machine, and mount the folder without noexec; nothing was changed",
        ) from error
    if not versions:
        raise SriovdpError(f"{new.name} is not a CNI plugin: exit code {done.returncode}", hint="nothing was changed")


def _check_networks(conf_dir: Path, bin_dir: Path) -> Iterator[str]:
    """Say why the runtime's networks would not call our plugin."""
    plugins = [plugin for path in _list_confs(conf_dir) for plugin in _read_plugins(path)]
    called = {str(plugin.get("type")) for plugin in plugins}
    if not called & {*TYPES, *_DELEGATING}:
        yield (
            f"no network in {conf_dir} calls {_NAME}, directly or through Multus; "
            f"install Multus, or add a network of type {_NAME}"
        )
    for plugin in plugins:
        other = plugin.get("binDir")
        if plugin.get("type") in _DELEGATING and other and Path(str(other)) != bin_dir:
            yield f"{plugin['type']} in {conf_dir} looks for plugins in {other}, not in {bin_dir}; change its binDir"


def _list_confs(conf_dir: Path) -> list[Path]:
    return sorted(path for path in conf_dir.glob("*") if path.suffix in _CONF_SUFFIXES and path.is_file())


def _read_plugins(path: Path) -> list[dict[str, Any]]:
    """The plugins of a configuration or a list of them; none if it cannot be read: the runtime skips it too."""
    try:
        document = parse_object(path.read_bytes())
    except (OSError, UnreadableError):
        return []
    listed = document.get("plugins", [document])
    return [plugin for plugin in listed if isinstance(plugin, dict)] if isinstance(listed, list) else []


def _check_containerd(config: Path, bin_dir: Path) -> Iterator[str]:
    """Check whether containerd looks for plugins elsewhere (its docs/cri/config.md, versions 2 and 3)."""
    try:
        plugins = tomllib.loads(config.read_text()).get("plugins", {})
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        yield f"{config} cannot be read, so it is not known where containerd looks for plugins: {error}"
        return
    for section, key in _CONTAINERD_PATHS:
        named = plugins.get(section, {}).get("cni", {}).get(key)
        folders = named if isinstance(named, list) else [named] if named else []
        if folders and str(bin_dir) not in {str(Path(folder)) for folder in folders}:
            yield f"containerd looks for plugins in {', '.join(folders)}, not in {bin_dir}; change {key} in {config}"
