"""The way into the config file: all of it is right, or every fault of it is told at once."""

from pathlib import Path

from pydantic import ValidationError

from sriovdp.config.document import MAX_BYTES, read
from sriovdp.config.faults import list_faults
from sriovdp.config.rules import find_broken
from sriovdp.config.shape import FileShape
from sriovdp.config.values import Config
from sriovdp.errors import ConfigError


def load(path: Path) -> Config:
    """Read a config file. Raises ConfigError when it can not be read, and for all its faults at once."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(str(path), [f"can not be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), [f"line {line}: not UTF-8 text ({error.reason})"]) from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Config:
    """Read the text of a config file; `source` is what to call it in messages. Raises ConfigError with all faults."""
    document = read(text, source)
    broken = list(find_broken(document.tree))
    try:
        shape = FileShape.model_validate({} if document.tree is None else document.tree)
    except ValidationError as error:
        raise ConfigError(source, list_faults(document, error.errors(), broken)) from None
    if broken or document.duplicates:
        raise ConfigError(source, list_faults(document, [], broken))
    return shape.build()
