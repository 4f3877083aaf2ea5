"""Reading what a file on disk holds, whatever it holds: bounded, never blocking, and of the types that are expected.

A file can be torn, of another version, edited, or be no file at all. Its reader gets one kind of failure for all that.
"""

import errno
import json
import os
import stat
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from sriovdp.model import PciAddress, is_pci_address

T = TypeVar("T")

FILE_MAX = 16 << 20  # bytes; the largest request is 1 MiB, and its result 4
_INT_MAX = 1 << 64


class UnreadableError(ValueError):
    """The file, or a value in it, is not what it should be; the text says what it is."""


def read_file(path: Path | str, limit: int = FILE_MAX) -> bytes:
    """The content of a regular file; a FIFO or a device is not waited for, and a link not followed.

    Raises UnreadableError for what is no such file, OSError when it is not there or the disk fails.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link; a socket
            raise UnreadableError("it is no regular file") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("it is no regular file")
        if status.st_size > limit:
            raise UnreadableError(f"it has {status.st_size} bytes, more than {limit}")
        return _read_all(descriptor, limit)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, limit: int) -> bytes:
    content = b""
    while len(content) <= limit and (part := os.read(descriptor, limit + 1 - len(content))):
        content += part
    if len(content) > limit:
        raise UnreadableError(f"it has more than {limit} bytes")
    return content


def parse_object(content: bytes) -> dict[str, Any]:
    """A JSON object. Raises UnreadableError, also for one that is nested too deeply to be parsed."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"it is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise UnreadableError(f"it is no JSON object but {type(document).__name__}")
    return document


def build(kind: type[T], document: Any, what: str = "it") -> T:
    """A dataclass out of a JSON object, each value checked against its annotation.

    Fields that are missing get their default; keys that the class does not know are of a later version and left out.
    Raises UnreadableError naming the field.
    """
    if not isinstance(document, dict):
        raise UnreadableError(f"{what} is {type(document).__name__}, not an object")
    values: dict[str, Any] = {}
    for name, hint, is_required in _shape(typing.cast("Hashable", kind)):
        if name in document:
            values[name] = _convert(document[name], hint, name)
        elif is_required:
            raise UnreadableError(f"{what} has no {name}")
    return kind(**values)


@cache
def _shape(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    hints = typing.get_type_hints(kind)
    return tuple(
        (field.name, hints[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
    )


def _convert(value: Any, hint: Any, name: str) -> Any:
    """The value as its annotation wants it: a scalar, a PCI address, a Literal, a mapping, a tuple, a dataclass."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is PciAddress:
        if isinstance(value, str) and is_pci_address(value):
            return PciAddress(value)
    elif is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, name)
    elif origin is tuple and isinstance(value, list):
        return _convert_list(value, arguments, name)
    elif origin is Mapping and isinstance(value, dict):
        return {key: _convert(item, arguments[1], f"{name}.{key[:60]}") for key, item in value.items()}
    elif origin in (Union, types.UnionType):
        return _convert_union(value, arguments, name)
    elif _is_fit(value, hint, origin, arguments):
        return value
    raise UnreadableError(f"{name} is {str(value)[:60]!r}")


def _is_fit(value: Any, hint: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether a scalar or a word of a Literal is as its annotation wants it; True is no int."""
    if hint is Any:
        return True
    if hint in (str, bool, int, type(None)):
        return type(value) is hint and (hint is not int or abs(value) < _INT_MAX)
    return origin is Literal and isinstance(value, str) and value in arguments


def _convert_list(value: list[Any], arguments: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    """A tuple of one type and any length, or of a type for each of its items."""
    wanted = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(wanted) != len(value):
        raise UnreadableError(f"{name} has {len(value)} items in place of {len(wanted)}")
    return tuple(_convert(item, hint, name) for item, hint in zip(value, wanted, strict=True))


def _convert_union(value: Any, arguments: tuple[Any, ...], name: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    [wanted] = [argument for argument in arguments if argument is not type(None)]
    return _convert(value, wanted, name)
