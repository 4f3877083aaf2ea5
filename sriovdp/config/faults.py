"""Faults of the config file as sentences: line, path, value, what is allowed."""

from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from sriovdp.config.checks import suggest
from sriovdp.config.document import Document, Path, Plain, write_path
from sriovdp.config.rules import ALL_SELECTOR_FIELDS
from sriovdp.config.shape import FileShape

MAX_FAULTS = 200
"""So many are told one by one: the message goes to logs and Events too."""

_SHOWN_LENGTH = 60
_MISSING = {"selectors": "must be given; to take every VF of the node write `selectors: {}`"}
_WANTED = {
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "too_short": "must have at least one entry",
    "dict_type": "must be an object",
}


def list_faults(document: Document, errors: Iterable[ErrorDetails], broken: Iterable[tuple[Path, str]]) -> list[str]:
    """All faults of a file, one sentence each, in file order: keys twice, errors of the shape, broken rules."""
    faults = [(line, path, "this key is here a second time") for line, path in document.duplicates]
    faults += [(document.line(path), path, sentence) for path, sentence in broken]
    for error in errors:
        path = _as_written(error["loc"], document.tree)
        faults.append((document.line(path), path, _explain(error)))
    return write_sentences(faults)


def write_sentences(found: Iterable[tuple[int, Path, str]]) -> list[str]:
    """Sentences about places of the file, by line and path, in file order."""
    ordered = sorted(found, key=lambda fault: fault[0])
    told = [
        f"line {line}: {write_path(path) or 'the file'}: {sentence}" for line, path, sentence in ordered[:MAX_FAULTS]
    ]
    return told if len(ordered) <= MAX_FAULTS else [*told, f"and {len(ordered) - MAX_FAULTS} more"]


def _as_written(loc: Path, tree: Plain) -> Path:
    """The path in the file: one object where a list may stand has no index there."""
    path: list[str | int] = []
    node: Any = tree
    for part in loc:
        if (isinstance(part, int) and isinstance(node, dict)) or part == "[key]":
            continue
        if not isinstance(node, dict | list):
            break  # a word that stands for an object
        path.append(part)
        node = _child(node, part)
    return tuple(path)


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, dict):
        return node.get(part)
    return node[part] if isinstance(node, list) and isinstance(part, int) else None


def _explain(error: ErrorDetails) -> str:
    """Our sentence for an error of pydantic."""
    shown = _show(error["input"])
    match error["type"]:
        case "value_error":
            reason = str(error["ctx"]["error"])
            return reason if isinstance(error["input"], dict | list) else f"{shown}: {reason}"
        case "missing":
            return _MISSING.get(str(error["loc"][-1]), "must be given")
        case "extra_forbidden":
            if error["loc"][0] == "resourceList" and error["loc"][-1] in ALL_SELECTOR_FIELDS:
                return "this key belongs into the pool's selectors"
            return f"unknown key; {suggest(str(error['loc'][-1]), _list_keys(error['loc']))}"
        case kind:
            return f"{_WANTED.get(kind, error['msg'])}, not {shown}"


def _list_keys(loc: Path) -> list[str]:
    """Keys known in the object an unknown key was found in."""
    model: type[BaseModel] = FileShape
    for key in loc[:-1]:
        for field in model.model_fields.values():
            if field.alias == key:
                model = _find_model(field.annotation) or model
                break
    return [str(field.alias) for field in model.model_fields.values()]


def _find_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _find_model(part))), None)


def _show(value: Any) -> str:
    """A value of the file in a few characters."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."
