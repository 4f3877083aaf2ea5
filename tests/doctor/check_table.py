"""The table of checks in docs/doctor.md, from the code: `python -m tests.doctor.check_table` writes it."""

import re
from pathlib import Path

from sriovdp.doctor.verdict import CHECKS

PAGE = Path(__file__).parents[2] / "docs/doctor.md"
_TABLE = re.compile(r"(<!-- checks:[^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)


def render(page: str) -> str:
    """The page with the table as the checks are now."""
    rows = [f"| `{one.name}` | {one.area} | {one.about} | {one.source} |" for one in CHECKS]
    table = "\n".join(["| check | area | what holds on a well node | source |", "|---|---|---|---|", *rows, ""])
    return _TABLE.sub(lambda found: f"{found[1]}{table}{found[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
