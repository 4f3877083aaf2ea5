"""How values of the file and hints look in a message."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

_SHOWN_LENGTH = 60
_COMPARED_LENGTH = 99


def show(value: Any) -> str:
    """A value of the file in a few characters."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def find_alike(word: str, known: Sequence[str]) -> str | None:
    """The known word that looks like this one, if there is one."""
    folded = {name.lower(): name for name in known}
    close = get_close_matches(word.lower()[:_COMPARED_LENGTH], folded, n=1)
    return folded[close[0]] if close else None


def suggest(word: str, known: Sequence[str]) -> str:
    """What to write instead: the known word that looks alike, else all that there are."""
    alike = find_alike(word, known)
    return f"did you mean '{alike}'?" if alike else f"allowed here: {', '.join(known)}"
