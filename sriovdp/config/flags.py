"""What a flag of the agent says for the whole config file, where the file itself says nothing."""

from dataclasses import dataclass

from sriovdp.config.document import Plain


@dataclass(frozen=True, slots=True)
class Flags:
    """`prefix`: the domain of pools without `resourcePrefix`. `cdi`: true unless the file has a `cdi` of its own."""

    prefix: str = ""
    cdi: bool = False

    def fill(self, tree: Plain) -> None:
        """Write them into the tree of a config file."""
        if not isinstance(tree, dict):
            return
        if self.cdi:
            tree.setdefault("cdi", True)
        pools = tree.get("resourceList")
        for pool in pools if self.prefix and isinstance(pools, list) else ():
            if isinstance(pool, dict) and not pool.get("resourcePrefix"):
                pool["resourcePrefix"] = self.prefix


NO_FLAGS = Flags()
