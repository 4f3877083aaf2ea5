"""The JSON object of a network configuration, nested no deeper than Python can follow."""

import json
import re
from typing import Any

from cni.protocol.spec import DECODING_FAILURE
from sriovdp.errors import CniError

_BRACKET = re.compile(rb"[\[\]{}]")
_MAX_DEPTH = 100
_HINT = "correct spec.config of the NetworkAttachmentDefinition, or what comes on stdin"


def decode(text: bytes) -> dict[str, Any]:
    """The object. Raises CniError with code 6, and line and column of what is no JSON."""
    try:
        _check_depth(text)
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise CniError(DECODING_FAILURE, f"the network configuration is no JSON: {where}", hint=_HINT) from None
    except (ValueError, RecursionError) as error:
        raise CniError(DECODING_FAILURE, f"the network configuration is no JSON: {error}", hint=_HINT) from None
    if not isinstance(raw, dict):
        raise CniError(DECODING_FAILURE, "the network configuration is no JSON object", hint=_HINT)
    return raw


def _check_depth(text: bytes) -> None:
    """Raise ValueError for what is nested so deeply that Python's recursion could end in parsing or in writing it.

    Brackets in texts count too, which is far from what any network has.
    """
    depth = deepest = 0
    if text.count(b"[") + text.count(b"{") > _MAX_DEPTH:
        for byte in _BRACKET.findall(text):
            depth += 1 if byte in b"[{" else -1
            deepest = max(deepest, depth)
    if deepest > _MAX_DEPTH:
        raise ValueError(f"it is nested {deepest} levels deep, more than {_MAX_DEPTH}")
