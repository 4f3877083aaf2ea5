"""The container image, built without a container engine: buildah in a chroot, on a base image made by debootstrap.

The base image stands in for the one that the Dockerfile names, under that name: the same release, out of the same
packages, thinned as the official one is. It knows this machine's way to package indexes; the Dockerfile must not.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from setup import packages
from setup.release import remove_tree, thin, unpack_release
from setup.steps import CHECKOUT, cache_folder, run, say

IMAGE = "docker.io/sriovdp/sriovdp:0.1.0"
_BASE = "docker.io/library/debian:trixie-slim"
_RELEASE = "trixie"
_PACKAGES = ("buildah", "ca-certificates")
_INPUTS = (
    "Dockerfile",
    ".dockerignore",
    "requirements.lock",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "sriovdp",
    "cni",
)
_CERTIFICATES = "/etc/machine-ca.crt"  # not below /etc/ssl/certs, which the package ca-certificates writes again
_HINT = "the end of its output follows; `apt-get update` and `pip config list` in .venv/bin show what can be downloaded"


def prepare_image() -> Path:
    """An archive with the image of this checkout, for `ctr images import`; built when its sources have changed."""
    target = cache_folder() / f"image-{_key()}.tar"
    if target.is_file():
        return target
    packages.ensure_packages(_PACKAGES)
    base = _prepare_base()
    say("building the container image (some 2 minutes)")
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="image-building-") as name:
        folder = Path(name)
        _import_base(folder, base)
        # the network of this machine, and no other registry than what is here already
        _buildah(folder, "bud", "--network=host", "--pull-never", f"--tag={IMAGE}", str(CHECKOUT))
        _buildah(folder, "push", IMAGE, f"docker-archive:{folder}/archive:{IMAGE}")
        for old in cache_folder().glob("image-*.tar"):
            old.unlink()
        (folder / "archive").rename(target)
        # layers have files of all kinds of rights, in folders that may be read-only
        remove_tree(folder / "storage")
    return target


def _key() -> str:
    digest = hashlib.sha256()
    for path in _list_inputs():
        digest.update(f"{path.relative_to(CHECKOUT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _list_inputs() -> Iterator[Path]:
    for name in _INPUTS:
        path = CHECKOUT / name
        for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if one.is_file() and "__pycache__" not in one.parts:
                yield one


def _prepare_base() -> Path:
    """The tree of the base image, in the cache."""
    target = cache_folder() / f"base-{_RELEASE}"
    if target.is_dir():
        return target
    say(f"making the base image, a Debian {_RELEASE}")
    building = target.with_name(f"{target.name}-building")
    unpack_release(_RELEASE, building)
    thin(building)
    _teach_downloads(building)
    building.rename(target)
    return target


def _teach_downloads(tree: Path) -> None:
    """Let pip in the image download as it does on this machine: the same index, the same certificates."""
    told = run([CHECKOUT / ".venv/bin/python", "-m", "pip", "config", "list"], hint="run `make setup` first")
    settings = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", told, re.MULTILINE))
    kept = {key: value for key, value in settings.items() if key in {"index-url", "extra-index-url", "trusted-host"}}
    bundle = settings.get("cert") or os.environ.get("SSL_CERT_FILE")
    if bundle:
        shutil.copy(bundle, tree / _CERTIFICATES.lstrip("/"))
        kept["cert"] = _CERTIFICATES
    lines = [f"{key} = {value}\n" for key, value in kept.items()]
    (tree / "etc/pip.conf").write_text("".join(["[global]\n", *lines]))


def _import_base(folder: Path, base: Path) -> None:
    container = _buildah(folder, "from", "scratch").strip()
    _buildah(folder, "add", "--quiet", container, str(base), "/")
    _buildah(folder, "commit", "--quiet", "--rm", container, _BASE)


def _buildah(folder: Path, command: str, *arguments: str) -> str:
    storage: list[str | Path] = ["--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs"]
    isolation = ["--isolation=chroot"] if command in {"from", "bud"} else []
    return run(["buildah", *storage, command, *isolation, *arguments], hint=_HINT)
