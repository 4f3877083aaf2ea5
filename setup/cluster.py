"""`python3 -m setup.cluster`: what `make test-cluster` needs beyond the set-up, into the cache and `build/`.

It takes long where there is nothing yet, and nothing when all is there. With arguments, only the programs of these
names: `multus`, `kubelet-managers`.
"""

import sys
from pathlib import Path

from setup.image import prepare_image
from setup.packages import ensure_packages
from setup.programs import KUBE_APISERVER, KUBELET, KUSTOMIZE, MANAGERS, MULTUS, Program, prepare
from setup.steps import CHECKOUT, SetupError, run, say

BUILD = CHECKOUT / "build/cluster"
_PACKAGES = ("etcd-server", "openssl", "socat")
_FOR_UNIT_TESTS = {program.name: program for program in (MULTUS, MANAGERS)}
_LAYERS = ("base", "overlays/debian-cni", "overlays/metrics", "overlays/open-vswitch", "overlays/provisioning")


def main() -> int:
    """Prepare all, or what is named; gives the exit code."""
    named = sys.argv[1:]
    if unknown := set(named) - _FOR_UNIT_TESTS.keys():
        say(f"FAILED: no program is named {', '.join(sorted(unknown))}; choose from {', '.join(_FOR_UNIT_TESTS)}")
        return 1
    try:
        BUILD.mkdir(parents=True, exist_ok=True)
        for name in named or _FOR_UNIT_TESTS:
            _prepare(_FOR_UNIT_TESTS[name])
        if not named:
            _prepare_rest()
    except SetupError as error:
        say(f"FAILED: {error}")
        return 1
    say(f"{' and '.join(named) or 'all parts of a cluster'}: ready in {BUILD}")
    return 0


def _prepare_rest() -> None:
    ensure_packages(_PACKAGES)
    for program in (KUBELET, KUBE_APISERVER):
        _prepare(program)
    _render(prepare(KUSTOMIZE))
    _link("image.tar", prepare_image())


def _prepare(program: Program) -> None:
    _link(program.name, prepare(program))


def _link(name: str, target: Path) -> None:
    (BUILD / name).unlink(missing_ok=True)
    (BUILD / name).symlink_to(target)


def _render(kustomize: Path) -> None:
    """Each layer of config/deploy as one file of plain manifests."""
    for layer in _LAYERS:
        folder = CHECKOUT / "config/deploy" / layer
        rendered = run([kustomize, "build", folder], hint="a kustomization is wrong; what kustomize says follows")
        (BUILD / f"{folder.name}.yaml").write_text(rendered)


if __name__ == "__main__":
    sys.exit(main())
