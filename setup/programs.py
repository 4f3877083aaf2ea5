"""Programs of others for the tests with a cluster, built by the Go toolchain from their modules at pinned versions.

Each is built once into the cache, with two compilers at a time and at the lowest priority. A variable of the program's
name, like MULTUS=/usr/bin/multus, takes one that is there already.
"""

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from setup.golang import find_go
from setup.steps import CHECKOUT, SetupError, cache_folder, run, say

KUBERNETES = "v1.34.2"
_HINT = "the end of its output follows; `go env GOPROXY` shows from where modules come"


@dataclass(frozen=True)
class Program:
    """One program; building it takes about so many `minutes`.

    `staging` is the version of the modules that Kubernetes keeps in its own tree, for programs of that tree. `ours` are
    folders of that tree, each with the folder of this checkout whose Go files are added to it.
    """

    name: str
    module: str
    version: str
    package: str
    minutes: int
    staging: str = ""
    flags: str = ""
    ours: tuple[tuple[str, str], ...] = ()

    @property
    def variable(self) -> str:
        """The variable that names one that is there already."""
        return self.name.upper().replace("-", "_")

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        given = os.environ.get(self.variable)
        return Path(given) if given else cache_folder() / f"{self.name}-{self.version}{self._key}"

    def list_added(self) -> list[tuple[str, Path]]:
        """Our own files: where each is in the module's tree, and where it is here."""
        folders = ((inside, CHECKOUT / here) for inside, here in self.ours)
        return [(f"{inside}/{path.name}", path) for inside, here in folders for path in sorted(here.glob("*.go"))]

    @property
    def _key(self) -> str:
        """The part of the name that differs between builds of different files of ours."""
        content = b"".join(path.read_bytes() for _, path in self.list_added())
        return f"-{hashlib.sha256(content).hexdigest()[:12]}" if content else ""


_STAMP = f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}"
_STAGING = KUBERNETES.replace("v1.", "v0.")
MULTUS = Program("multus", "gopkg.in/k8snetworkplumbingwg/multus-cni.v4", "v4.2.2", "./cmd/multus", 4)
KUSTOMIZE = Program("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", "v5.7.1", ".", 3)
KUBELET = Program("kubelet", "k8s.io/kubernetes", KUBERNETES, "./cmd/kubelet", 17, _STAGING, _STAMP)
KUBE_APISERVER = Program("kube-apiserver", "k8s.io/kubernetes", KUBERNETES, "./cmd/kube-apiserver", 9, _STAGING, _STAMP)
_OURS = (
    ("cmd/managers", "tests/kubelet/managers"),
    ("pkg/kubelet/cm/devicemanager", "tests/kubelet/managers/devicemanager"),
)
MANAGERS = Program("kubelet-managers", "k8s.io/kubernetes", KUBERNETES, "./cmd/managers", 5, _STAGING, _STAMP, _OURS)
"""The kubelet's plugin manager and device manager without the rest of it, for `tests/kubelet`."""


def prepare(program: Program) -> Path:
    """The program, built when it is not there. Raises SetupError."""
    if program.path.is_file():
        return program.path
    if os.environ.get(program.variable):
        raise SetupError(f"{program.variable} names {program.path}, which is no file; leave it unset to have it built")
    say(f"building {program.name} {program.version}, which takes about {program.minutes} minutes")
    started = time.monotonic()
    tree = _prepare_tree(program)
    target = program.path.with_name(f"{program.path.name}.new")
    link = f"-s -w {program.flags}".strip()
    overlay = _write_overlay(program, tree)
    _go(tree, "build", "-p=2", f"-ldflags={link}", *overlay, "-o", str(target), program.package)
    target.rename(program.path)
    say(f"built {program.name} in {time.monotonic() - started:.0f} s")
    return program.path


def _write_overlay(program: Program, tree: Path) -> list[str]:
    """The option that adds our files to the tree, which stays as it is for the other programs."""
    added = {str(tree / inside): str(path) for inside, path in program.list_added()}
    if not added:
        return []
    path = program.path.with_name(f"{program.path.name}.overlay.json")
    path.write_text(json.dumps({"Replace": added}))
    return [f"-overlay={path}"]


def _prepare_tree(program: Program) -> Path:
    """The module's source in the cache, where it can be written: its own `go.mod` decides about all other modules."""
    tree = cache_folder() / f"source-{program.module.replace('/', '-')}-{program.version}"
    if (tree / "ready").is_file():
        return tree
    cache_folder().mkdir(parents=True, exist_ok=True)
    downloaded = _go(cache_folder(), "mod", "download", "-json", f"{program.module}@{program.version}")
    run(["rm", "-rf", tree], hint="remove it by hand")
    run(["cp", "-r", json.loads(downloaded)["Dir"], tree], hint="the disk is full, or the cache cannot be written")
    run(["chmod", "-R", "u+w", tree], hint="the cache belongs to somebody else")
    for name in ("go.work", "go.work.sum"):
        (tree / name).unlink(missing_ok=True)
    shutil.rmtree(tree / "vendor", ignore_errors=True)
    if program.staging:
        _use_published(tree, program.staging)
    (tree / "ready").touch()
    return tree


def _use_published(tree: Path, version: str) -> None:
    """Take the modules that are parts of the repository, but not of the module's archive, as they are published."""
    described = json.loads(_go(tree, "mod", "edit", "-json"))
    names = [one["Old"]["Path"] for one in described.get("Replace") or () if one["New"]["Path"].startswith("./")]
    _go(tree, "mod", "edit", *(f"-replace={name}={name}@{version}" for name in names))


def _go(folder: Path, *arguments: str) -> str:
    settings = ["CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-trimpath -mod=mod -buildvcs=false"]
    if "GOTOOLCHAIN" not in os.environ:
        settings.append("GOTOOLCHAIN=auto")  # Debian's own does not fetch a newer one by default
    return run(["env", *settings, "nice", "-n", "19", find_go(), *arguments], cwd=folder, hint=_HINT)
