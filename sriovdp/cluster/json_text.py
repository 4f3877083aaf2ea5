"""JSON text that stays as its author wrote it: checked, and indented as Go's json.Indent does with four blanks."""

import json
import re
from typing import Any

_INDENT = "    "
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+', re.DOTALL)
_MAX_DEPTH = 100
_MAX_LENGTH = 256 * 1024


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def decode(text: str) -> Any:
    """The value of a JSON text. Raises ValueError with the reason in one sentence."""
    if len(text) > _MAX_LENGTH:
        raise ValueError("is too long")
    depth = most = 0
    for part in _TOKEN.findall(text):
        depth += (part in "[{") - (part in "]}")
        most = max(most, depth)
    if most > _MAX_DEPTH:
        raise ValueError(f"is nested deeper than {_MAX_DEPTH}")
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error.msg} at character {error.pos + 1}") from error


def indent(text: str) -> str:
    """A JSON text with each entry on its own line. Order, numbers and strings stay as they are."""
    parts: list[str] = []
    depth, opened = 0, False
    for part in _TOKEN.findall(text):
        if part in "]}":
            depth -= 1
            parts.append(part if opened else f"\n{_INDENT * depth}{part}")
            opened = False
            continue
        if opened:
            parts.append(f"\n{_INDENT * depth}")
            opened = False
        if part in "[{":
            depth += 1
            opened = True
        parts.append({",": f",\n{_INDENT * depth}", ":": ": "}.get(part, part))
    return "".join(parts)


def has_blank_in_string(text: str) -> bool:
    """Whether white space stands inside a string of a JSON text."""
    return any(part.startswith('"') and re.search(r"\s", part) for part in _TOKEN.findall(text))
