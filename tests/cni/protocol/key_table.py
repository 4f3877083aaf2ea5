"""The tables of keys in docs/cni.md, from the keys themselves: `python -m tests.cni.protocol.key_table` writes them."""

import re
from pathlib import Path

from cni.protocol.network_keys import KEYS, Key

PAGE = Path(__file__).parents[3] / "docs/cni.md"
_TABLE = re.compile(r"(<!-- keys(?P<old> of 2017)?: [^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)


def render(page: str) -> str:
    """The page with each table as the keys are now."""
    return _TABLE.sub(lambda found: f"{found[1]}{_render_table(since_2017=bool(found['old']))}{found[3]}", page)


def _render_table(*, since_2017: bool) -> str:
    rows = [_render_row(key) for key in KEYS if key.since_2017 is since_2017]
    return "\n".join(["| key | value | meaning |", "|---|---|---|", *rows, ""])


def _render_row(key: Key) -> str:
    mode = ". Kernel mode only" if key.kernel_only else ""
    policy = f". The node's `cni.{key.policy}` can forbid it" if key.forbids else ""
    return f"| `{key.name}` | {key.values} | {key.meaning}{mode}{policy} |"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
