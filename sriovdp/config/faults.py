"""Faults and warnings of the config file as sentences: line, path, sentence."""

from collections.abc import Iterable

from sriovdp.config.document import Document, KeyPath, write_path

MAX_FAULTS = 200
"""At most so many are listed one by one: the message goes to logs and Events too."""


def list_faults(document: Document, found: Iterable[tuple[KeyPath, str]]) -> list[str]:
    """All faults of a file, one sentence each, in file order: keys that are there twice, and what was found."""
    twice = [(line, path, "this key is here a second time") for line, path in document.duplicates]
    return write_sentences([*twice, *((document.line(path), path, sentence) for path, sentence in found)])


def write_sentences(found: Iterable[tuple[int, KeyPath, str]]) -> list[str]:
    """Sentences about places of the file, by line and path, in file order."""
    ordered = sorted(found, key=lambda fault: fault[0])
    listed = [
        f"line {line}: {write_path(path) or 'the file'}: {sentence}" for line, path, sentence in ordered[:MAX_FAULTS]
    ]
    return listed if len(ordered) <= MAX_FAULTS else [*listed, f"and {len(ordered) - MAX_FAULTS} more"]
