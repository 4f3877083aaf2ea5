"""The text of a config file as a document: JSON or YAML, alone or inside a Kubernetes manifest."""

from collections.abc import Callable

from sriovdp.config.document import MAX_BYTES, Document
from sriovdp.config.json_text import JsonError, is_meant_as_json, read_json
from sriovdp.config.manifest import find_embedded, is_manifest
from sriovdp.errors import ConfigError


def read(text: str, source: str, *, key: str = "", node: str = "") -> Document:
    """Read the text of a config file, or of a manifest that has it under `key`, or under the name of the node.

    Raises ConfigError when it is too large, neither JSON nor YAML, or YAML that is refused.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(source, [f"the file is larger than {MAX_BYTES // 1024} KiB"])
    documents = read_documents(text, source)
    if any(is_manifest(document.tree) for document in documents):
        return _read_embedded(documents, source, key, node)
    if len(documents) > 1:
        begin = documents[1].begin
        raise ConfigError(source, [f"line {begin}: a second document begins here; one file has one"])
    return documents[0]


def _read_embedded(documents: list[Document], source: str, key: str, node: str) -> Document:
    try:
        found = find_embedded(documents, key, node)
    except ValueError as error:
        raise ConfigError(source, [f"line 1: {error}"]) from None
    block = found.document.blocks.get(found.path)
    inner = read_documents(found.text, source, block or found.document.line(found.path), moves=block is not None)
    if len(inner) > 1:
        raise ConfigError(source, [f"{found.names[0]}: has a second document; one config file has one"])
    return inner[0]


def read_documents(text: str, source: str, first: int = 1, *, moves: bool = True) -> list[Document]:
    """The documents of a text, JSON or YAML, whose first line is this one. Raises ConfigError.

    Unless it moves, all of it stands in that line.
    """

    def place(line: int) -> int:
        return first + line - 1 if moves else first

    json_error: JsonError | None = None
    if is_meant_as_json(text):
        try:
            return [read_json(text, first) if moves else _move(read_json(text), place)]
        except JsonError as error:
            json_error = error  # YAML takes some of it all the same: comments with #, a comma before a bracket
    from sriovdp.config.yaml_text import YamlError, read_yaml  # noqa: PLC0415 - JSON is read without PyYAML's import

    try:
        if not (json_error and json_error.final):
            return [_move(document, place) for document in read_yaml(text)]
        fault = ""
    except YamlError as error:
        fault = f"line {place(error.line)}: {error.problem}"
        json_error = json_error if error.is_text else None
    if json_error is not None:
        inside = f"line {json_error.line}, column {json_error.column} of this text: " if not moves else ""
        column = f", column {json_error.column}" if first == 1 and moves else ""
        fault = f"line {json_error.line if moves else first}{column}: {inside}{json_error.problem}"
    raise ConfigError(source, [fault])


def _move(document: Document, place: Callable[[int], int]) -> Document:
    document.lines = {path: place(line) for path, line in document.lines.items()}
    document.blocks = {path: place(line) for path, line in document.blocks.items()}
    document.duplicates = [(place(line), path) for line, path in document.duplicates]
    document.begin = place(document.begin)
    return document
