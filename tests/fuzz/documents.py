"""JSON documents for the fuzzer: sound samples with some values replaced, and bytes that are no JSON at all."""

import copy
import json
from collections.abc import Sequence
from typing import Any, Protocol

_DEEP = 100_000  # levels; Python's parsers end at some thousand
# what people and hostile people write where something else belongs
_ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    7,
    4095,
    2**31,
    2**63,
    2**70,
    -(2**64),
    0.5,
    float("inf"),
    float("nan"),
    "",
    " ",
    "0",
    "on",
    "\0",
    "a\0b",
    "/",
    "..",
    "../../etc/passwd",
    "/proc/1/root/etc",
    "/dev/zero",
    "eth0",
    "lo",
    "sriov",
    "host-local",
    "0000:01:10.0",
    "0000:01:00.0",
    "02:00:00:00:00:01",
    "10.1.1.0/24",
    "fe80::1/64",
    "1.1.0",
    "99.0.0",
    "\ud800",
    "\u202e",
    "x" * 300,
    "x" * 70_000,
    [],
    {},
    [[]],
    [None],
    [{}],
    {"": ""},
    {"a": {"b": {"c": []}}},
    ["0000:01:10.0"] * 3,
)


class Choices(Protocol):
    """Where the fuzzer's decisions come from; atheris.FuzzedDataProvider is one."""

    def ConsumeIntInRange(self, least: int, most: int) -> int:  # noqa: N802 - the library's names
        """Give a number."""

    def ConsumeUnicode(self, length: int) -> str:  # noqa: N802
        """Give a text."""

    def ConsumeBytes(self, length: int) -> bytes:  # noqa: N802
        """Give bytes."""

    def remaining_bytes(self) -> int:
        """How much is left to decide by."""


def make_document(choices: Choices, samples: Sequence[dict[str, Any]]) -> bytes:
    """One of the samples, changed in up to six places; now and then raw bytes, a cut text, or a very deep one."""
    kind = choices.ConsumeIntInRange(0, 15)
    if kind == 0:
        return choices.ConsumeBytes(choices.remaining_bytes())
    document = copy.deepcopy(samples[choices.ConsumeIntInRange(0, len(samples) - 1)])
    for _ in range(choices.ConsumeIntInRange(0, 6)):
        _change(choices, document)
    text = json.dumps(document).encode()
    if kind == 1:
        return text[: choices.ConsumeIntInRange(0, len(text))]
    if kind == 2:
        at = choices.ConsumeIntInRange(0, len(text))
        return text[:at] + choices.ConsumeBytes(16) + text[at:]
    if kind == 3 and choices.ConsumeIntInRange(0, 99) == 0:
        return text.replace(b"null", b'{"a":' * _DEEP).replace(b'""', b"[" * _DEEP) + b"[" * _DEEP
    return text


def _change(choices: Choices, document: Any) -> None:
    """Go down some levels, and there replace, remove, add or rename something."""
    while True:
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        if not keys:
            return
        key = keys[choices.ConsumeIntInRange(0, len(keys) - 1)]
        below = document[key]
        if isinstance(below, dict | list) and below and choices.ConsumeIntInRange(0, 3):
            document = below
            continue
        break
    what = choices.ConsumeIntInRange(0, 9)
    if what == 0:
        del document[key]
    elif what == 1 and isinstance(document, dict):
        document[choices.ConsumeUnicode(8)] = document.pop(key)
    elif what == 2 and isinstance(document, dict):
        document[str(key).upper()] = _pick(choices)
    elif what == 3:
        document[key] = choices.ConsumeUnicode(12)
    else:
        document[key] = _pick(choices)


def _pick(choices: Choices) -> Any:
    return copy.deepcopy(_ODD[choices.ConsumeIntInRange(0, len(_ODD) - 1)])
