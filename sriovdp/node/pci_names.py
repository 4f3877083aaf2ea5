"""Names of vendors and devices from pci.ids, which the package pypci carries as JSON."""

import importlib.resources
import json
from functools import cache
from typing import Any


def name_ids(vendor: str, device: str) -> tuple[str | None, str | None]:
    """Names of a vendor and of its device, by their ids as 4 lower-case hex digits; None where pci.ids knows none."""
    known: dict[str, Any] = _load().get(vendor, {})
    return known.get("name"), known.get(device, {}).get("name")


@cache
def _load() -> dict[str, Any]:
    """Vendor id → {"name": ..., device id → {"name": ...}}; 2.6 MB of text, so it is read at the first question."""
    text = (importlib.resources.files("pypci") / "data" / "pci.data.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
