"""Columns of text for people. They cost microseconds a row: a node can have a thousand VFs."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import click

Row: TypeAlias = Mapping[str, object]
"""Cells by their headings; None is no value. All rows of a table have the same headings, in the same order."""

_GAP = "  "


def write_table(rows: Sequence[Row]) -> list[str]:
    """Lines of a table, the headings first. A column without any value is left out; a cell without one is `-`."""
    headings = [heading for heading in rows[0] if any(row[heading] is not None for row in rows)] if rows else []
    cells = [headings, *([_write(row[heading]) for heading in headings] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return [click.style(lines[0], bold=True), *lines[1:]]


def _write(value: object) -> str:
    return "-" if value is None else str(value)
