"""The JSON schema of the config file, for editors: made from `shape`. Rules between entries are not in it."""

import json
from typing import Any

from sriovdp.config.shape import FileShape


def make_schema() -> dict[str, Any]:
    """The schema, in JSON Schema 2020-12."""
    schema = FileShape.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_drop_titles(schema)}


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
