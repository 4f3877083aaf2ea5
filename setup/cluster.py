"""`python3 -m setup.cluster`: what `make test-cluster` needs beyond the set-up, into the cache and `build/`.

It takes long where there is nothing yet, and nothing when all is there.
"""

import sys
from pathlib import Path

from setup.image import prepare_image
from setup.programs import KUSTOMIZE, MULTUS, prepare
from setup.steps import CHECKOUT, SetupError, run, say

BUILD = CHECKOUT / "build/cluster"
_LAYERS = ("base", "overlays/debian-cni", "overlays/provisioning")


def main() -> int:
    """Prepare all; gives the exit code."""
    try:
        BUILD.mkdir(parents=True, exist_ok=True)
        _link("image.tar", prepare_image())
        _link("multus", prepare(MULTUS))
        _render(prepare(KUSTOMIZE))
    except SetupError as error:
        say(f"FAILED: {error}")
        return 1
    say(f"the cluster's parts are ready in {BUILD}")
    return 0


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
