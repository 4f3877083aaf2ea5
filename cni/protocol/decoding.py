"""The JSON object of a network configuration, nested no deeper than Python can follow."""

import json
import re
from typing import Any

from cni.protocol.spec import DECODING_FAILURE
from sriovdp.errors import CniError

# a text is skipped whole, as brackets in it nest nothing; it may be cut, which json reports
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_MAX_DEPTH = 100
_HINT = "correct spec.config of the NetworkAttachmentDefinition, or what comes on stdin"


def decode(text: bytes) -> dict[str, Any]:
    """The object. Raises CniError with code 6, and line and column of what is no JSON."""
    try:
        document = text.decode("utf-8-sig")
        _check_depth(document)
        raw = json.loads(document)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise CniError(DECODING_FAILURE, f"the network configuration is no JSON: {where}", hint=_HINT) from None
    except (ValueError, RecursionError) as error:
        raise CniError(DECODING_FAILURE, f"the network configuration is no JSON: {error}", hint=_HINT) from None
    if not isinstance(raw, dict):
        raise CniError(DECODING_FAILURE, "the network configuration is no JSON object", hint=_HINT)
    return raw


def _check_depth(text: str) -> None:
    """Raise ValueError for what is nested so deeply that Python's recursion could end in parsing or in writing it.

    Such a network would be read here and then fail in the journal, or on its way to an IPAM plugin.
    """
    depth = deepest = 0
    if text.count("[") + text.count("{") > _MAX_DEPTH:
        for part in _TOKEN.findall(text):
            depth += (part in "[{") - (part in "]}")
            deepest = max(deepest, depth)
    if deepest > _MAX_DEPTH:
        raise ValueError(f"it is nested {deepest} levels deep, more than {_MAX_DEPTH}")
