"""The JSON schema of the config file, for editors: made from `shape`. Rules between entries are not in it.

It knows upstream's keys in their right spelling only, so that an editor marks the others, as the program warns of them.
"""

import json
from typing import Any

from sriovdp.config.shape import FileShape, LenientShape


def make_schema() -> dict[str, Any]:
    """The schema, in JSON Schema 2020-12."""
    schema = _drop_titles(FileShape.model_json_schema(by_alias=True))
    for shape in LenientShape.__subclasses__():
        _allow_nothing(schema if shape is FileShape else schema["$defs"][shape.__name__])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _allow_nothing(schema: dict[str, Any]) -> None:
    """Say what a lenient shape does: null and empty text are as if the key were not there."""
    for key, entry in schema["properties"].items():
        if key in schema.get("required", ()):
            continue
        told = {name: entry.pop(name) for name in ("default", "description") if name in entry}
        kinds = [kind for kind in entry.pop("anyOf", [dict(entry)]) if kind != {"type": "null"}]
        entry.clear()
        entry.update(anyOf=[*kinds, {"enum": [None, ""]}], **told)


def _drop_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out pydantic's titles, which only say the keys again."""
    for part in (schema, *schema.get("$defs", {}).values()):
        part.pop("title", None)
        for entry in part.get("properties", {}).values():
            entry.pop("title", None)
    return schema


def write_schema() -> str:
    """The schema as the text of `config/schema.json`."""
    return json.dumps(make_schema(), indent=2) + "\n"
