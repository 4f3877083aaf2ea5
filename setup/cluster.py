"""`python3 -m setup.cluster`: what `make test-cluster` needs beyond the set-up, into the cache and `build/`.

It takes long where there is nothing yet, and nothing when all is there. With the argument `multus`, Multus only.
"""

import sys
from pathlib import Path

from setup.image import prepare_image
from setup.packages import ensure_packages
from setup.programs import KUBE_APISERVER, KUBELET, KUSTOMIZE, MULTUS, prepare
from setup.steps import CHECKOUT, SetupError, run, say

BUILD = CHECKOUT / "build/cluster"
_PACKAGES = ("etcd-server", "openssl", "socat")
_LAYERS = ("base", "overlays/debian-cni", "overlays/metrics", "overlays/provisioning")


def main() -> int:
    """Prepare all; gives the exit code."""
    only_multus = sys.argv[1:] == ["multus"]
    try:
        BUILD.mkdir(parents=True, exist_ok=True)
        _link(MULTUS.name, prepare(MULTUS))
        if not only_multus:
            _prepare_rest()
    except SetupError as error:
        say(f"FAILED: {error}")
        return 1
    say(f"{'Multus is' if only_multus else 'all parts of a cluster are'} ready in {BUILD}")
    return 0


def _prepare_rest() -> None:
    ensure_packages(_PACKAGES)
    for program in (KUBELET, KUBE_APISERVER):
        _link(program.name, prepare(program))
    _render(prepare(KUSTOMIZE))
    _link("image.tar", prepare_image())


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
