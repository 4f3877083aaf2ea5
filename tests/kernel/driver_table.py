"""The tables of drivers in docs/nics.md, from the code: `python -m tests.kernel.driver_table` writes them."""

import re
from pathlib import Path

from sriovdp.kernel.abilities import SETTINGS, TABLE, Abilities

PAGE = Path(__file__).parents[2] / "docs/nics.md"
_TABLE = re.compile(r"(<!-- drivers:[^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)
_HEADS = {
    "mac": "MAC",
    "vlan": "VLAN",
    "qos": "QoS",
    "vlan_proto": "802.1ad",
    "min_tx_rate": "min rate",
    "max_tx_rate": "max rate",
    "spoofchk": "spoofchk",
    "trust": "trust",
    "link_state": "link state",
}


def render(page: str) -> str:
    """The page with the tables as the drivers are now."""
    return _TABLE.sub(lambda found: f"{found[1]}{_render_settings()}\n{_render_quirks()}{found[2]}", page)


def _render_settings() -> str:
    heads = ["driver", *(_HEADS[name] for name in SETTINGS), "counters", "VFs", "source"]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *map(_render_row, TABLE.values()), ""])


def _render_row(driver: Abilities) -> str:
    marks = ["yes" if name in driver.settings else "" for name in SETTINGS]
    counters, most = "yes" if driver.counters else "", str(driver.most_vfs or "")
    return f"| {' | '.join([f'`{driver.driver}`', *marks, counters, most, driver.source])} |"


def _render_quirks() -> str:
    rows = [f"| `{one.driver}` | {quirk.text} | {quirk.source} |" for one in TABLE.values() for quirk in one.quirks]
    return "\n".join(["| driver | habit | source |", "|---|---|---|", *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
