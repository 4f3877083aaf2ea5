"""Container images without a registry: a static busybox, packed here and handed to containerd."""

import io
import json
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

BUSYBOX = "docker.io/library/busybox:stable"
_PROGRAM = Path("/bin/busybox")
_APPLETS = ("sh", "ip", "sleep", "top", "ping", "cat", "ls", "ifconfig", "test", "true", "nc")


def import_busybox() -> None:
    """Make busybox known to the kubelet's containerd, and the image for sandboxes under the name that it wants."""
    dumped = subprocess.run(["containerd", "config", "dump"], capture_output=True, text=True, check=True).stdout
    pause = tomllib.loads(dumped)["plugins"]["io.containerd.grpc.v1.cri"]["sandbox_image"]
    import_image(BUSYBOX, _pack_busybox(), ["/bin/sh"])
    import_image(pause, _pack_busybox(), ["/bin/sleep", "2147483647"])


def import_links(name: str) -> None:
    """An image of links and places to mount at: for containers that are given the programs of this machine."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("usr", "etc", "proc", "sys", "dev", "tmp"):
            _add_folder(tar, folder)
        for link in ("bin", "sbin", "lib", "lib64"):
            _add_link(tar, link, f"usr/{link}")
    import_image(name, buffer.getvalue(), ["/bin/sh"])


def import_image(name: str, layer: bytes, command: Sequence[str]) -> None:
    """Hand an image of one layer, a tar, to containerd."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        archive.write_bytes(_pack_image(name, layer, command))
        import_archive(archive)


def import_archive(archive: Path) -> None:
    """Hand an archive of images to containerd, where its CRI finds them."""
    subprocess.run(["ctr", "-n", "k8s.io", "images", "import", str(archive)], check=True, capture_output=True)


def _pack_busybox() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr"):
            _add_folder(tar, folder)
        _add_file(tar, "bin/busybox", _PROGRAM.read_bytes(), 0o755)
        for applet in _APPLETS:
            _add_link(tar, f"bin/{applet}", "busybox")
    return buffer.getvalue()


def _pack_image(name: str, layer: bytes, command: Sequence[str]) -> bytes:
    """An archive as `docker save` writes it: moby, image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset"."""
    config: Mapping[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin:/sbin:/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add_file(tar, "layer.tar", layer)
        _add_file(tar, "config.json", json.dumps(config).encode())
        _add_file(tar, "manifest.json", json.dumps(manifest).encode())
    return buffer.getvalue()


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(info)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))
