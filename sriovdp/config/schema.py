"""The JSON schema of the config file, for editors, made from the fields of `values`. It has no rules between entries.

It knows each key in its own spelling only: an editor marks the others, as the program warns of them.
"""

import json
from typing import Any

from sriovdp.config.objects import find_object
from sriovdp.config.values import Config


def make_schema() -> dict[str, Any]:
    """The schema, in JSON Schema 2020-12."""
    defs: dict[str, dict[str, Any]] = {}
    find_object(Config).describe(defs)
    whole = defs.pop(Config.__name__)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": defs, **whole}


def write_schema() -> str:
    """The schema as the text of `config/schema.json`."""
    return json.dumps(make_schema(), indent=2, ensure_ascii=False) + "\n"
