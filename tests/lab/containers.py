"""Containers in the lab, made of exactly what an allocation says, as a kubelet has its runtime make them.

A container has the programs of this machine read-only, a user who is not root, and the capabilities that are told, no
others. For containerd the OCI spec is written here and run by `ctr`, so that nothing but the allocation decides about
devices. Where the allocation names CDI devices, podman runs it: containerd before 1.7 knows no CDI, and podman looks
the names up with the library that all runtimes have from the authors of the specification.
"""

import contextlib
import json
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fakes.kubelet import Admission

USER = 1000
_TIMEOUT = 180  # seconds
_NAMESPACES = ("pid", "ipc", "uts", "mount", "network")
_READ_ONLY = ["rbind", "ro"]


def run_container(
    name: str, pod: Admission, command: Sequence[str], *, capabilities: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a command in a container that has what the pod was given; its output, whether it fails or not."""
    with tempfile.TemporaryDirectory() as folder:
        root = _make_root(Path(folder))
        spec = Path(folder) / "config.json"
        spec.write_text(json.dumps(_write_spec(root, pod, command, capabilities)))
        return subprocess.run(
            ["ctr", "run", "--rm", "--config", str(spec), name],
            capture_output=True, text=True, check=False, timeout=_TIMEOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def run_cdi_container(pod: Admission, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a container of podman with the pod's CDI devices and environment, without any capability."""
    with tempfile.TemporaryDirectory() as folder, _mount_hugepages(Path(folder) / "hugepages") as hugepages:
        state = [f"--{name}={folder}/{name}" for name in ("root", "runroot", "tmpdir")]
        state += ["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=runc"]
        user = [f"--user={USER}:{USER}", "--cap-drop=all", "--security-opt=no-new-privileges", "--ulimit=memlock=-1:-1"]
        volumes = [f"--volume={place}:{place}:ro" for place in ("/usr", "/etc")]
        volumes.append(f"--volume={hugepages}:/dev/hugepages")
        given = [f"--device={name}" for name in pod.cdi_devices] + [f"--env={k}={v}" for k, v in pod.envs.items()]
        return subprocess.run(
            [
                *("podman", *state, "run", "--rm", "--network=none", "--log-driver=none", "--read-only"),
                *(*user, *volumes, *given),
                *("--rootfs", str(_make_root(Path(folder))), *command),
            ],
            capture_output=True, text=True, check=False, timeout=_TIMEOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@contextlib.contextmanager
def _mount_hugepages(place: Path) -> Iterator[Path]:
    """Huge pages for the container's user."""
    place.mkdir()
    options = f"uid={USER},gid={USER},mode=700"
    subprocess.run(["mount", "-t", "hugetlbfs", "-o", options, "hugetlbfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _make_root(folder: Path) -> Path:
    """A container's root: nothing but places to mount at."""
    root = folder / "rootfs"
    for place in ("usr", "etc", "proc", "sys", "dev", "tmp"):
        (root / place).mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    return root


def _write_spec(root: Path, pod: Admission, command: Sequence[str], capabilities: Sequence[str]) -> dict[str, Any]:
    devices = [_describe_device(node.host_path, node.container_path) for node in pod.nodes]
    rules = [
        {"allow": True, "type": "c", "major": device["major"], "minor": device["minor"], "access": node.permissions}
        for device, node in zip(devices, pod.nodes, strict=True)
    ]
    sets = {key: list(capabilities) for key in ("bounding", "effective", "inheritable", "permitted", "ambient")}
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "hostname": "container",
        "process": {
            "terminal": False,
            "user": {"uid": USER, "gid": USER},
            "args": list(command),
            "env": ["PATH=/usr/bin:/usr/sbin", *(f"{key}={value}" for key, value in pod.envs.items())],
            "cwd": "/tmp",
            "capabilities": sets,
            "rlimits": [{"type": "RLIMIT_MEMLOCK", "hard": 2**40, "soft": 2**40}],
            "noNewPrivileges": True,
        },
        "mounts": _list_mounts(pod),
        "linux": {
            "namespaces": [{"type": kind} for kind in _NAMESPACES],
            "devices": devices,
            "resources": {"devices": [{"allow": False, "access": "rwm"}, *rules]},
        },
    }


def _list_mounts(pod: Admission) -> list[dict[str, Any]]:
    """What every container has, huge pages as a volume of them is mounted, and then what the pod was given."""
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
        {
            "destination": "/dev/hugepages",
            "type": "hugetlbfs",
            "source": "hugetlbfs",
            "options": [f"uid={USER}", f"gid={USER}", "mode=700"],
        },
        *(
            {"destination": f"/{place}", "type": "bind", "source": f"/{place}", "options": _READ_ONLY}
            for place in ("usr", "etc")
        ),
        *(
            {
                "destination": mount.container_path,
                "type": "bind",
                "source": mount.host_path,
                "options": ["rbind", "ro" if mount.read_only else "rw"],
            }
            for mount in pod.mounts
        ),
    ]


def _describe_device(source: str, target: str) -> dict[str, Any]:
    """A device node for the container's user, as a runtime with `device_ownership_from_security_context` makes it."""
    status = Path(source).stat()
    return {
        "path": target,
        "type": "c",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": USER,
        "gid": USER,
    }
