"""Which nodes a selector means: a map of labels, or a LabelSelector of Kubernetes."""

from collections.abc import Mapping
from typing import Any

_LISTED = {"In": True, "NotIn": False}
_PRESENT = {"Exists": True, "DoesNotExist": False}


def matches(selector: Mapping[str, Any], labels: Mapping[str, str], *, is_whole: bool = False) -> bool:
    """Whether a node with these labels is meant. `is_whole`: the selector is a LabelSelector that `check` took."""
    if not is_whole:
        return all(labels.get(key) == value for key, value in selector.items())
    wanted = selector.get("matchLabels") or {}
    rules = selector.get("matchExpressions") or []
    return matches(wanted, labels) and all(_holds(rule, labels) for rule in rules)


def check(selector: Mapping[str, Any]) -> None:
    """Raise ValueError for what is no LabelSelector."""
    if unknown := [key for key in selector if key not in {"matchLabels", "matchExpressions"}]:
        raise ValueError(f"{unknown[0][:60]!r}: a selector has matchLabels and matchExpressions")
    wanted, rules = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if not isinstance(wanted, dict) or not all(isinstance(value, str) for value in wanted.values()):
        raise ValueError("matchLabels must be an object of texts; put true and numbers in quotes")
    if not isinstance(rules, list):
        raise ValueError("matchExpressions must be a list")  # noqa: TRY004 (a fault of the file)
    for rule in rules:
        _check_rule(rule)


def _check_rule(rule: Any) -> None:
    known = {"key", "operator", "values"}
    if not isinstance(rule, dict) or not isinstance(rule.get("key"), str) or set(rule) - known:
        raise ValueError("an entry of matchExpressions has key, operator and values")
    operator, values = rule.get("operator"), rule.get("values") or []
    if not isinstance(operator, str) or operator not in {*_LISTED, *_PRESENT}:
        raise ValueError("the operator of matchExpressions is In, NotIn, Exists or DoesNotExist")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("values of matchExpressions must be a list of texts")
    if bool(values) != (operator in _LISTED):
        raise ValueError(f"operator {operator} is {'with' if operator in _LISTED else 'without'} values")


def _holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """As Kubernetes does it: NotIn holds too where the label is not there."""
    operator, given = rule["operator"], labels.get(rule["key"])
    if operator in _PRESENT:
        return (given is not None) == _PRESENT[operator]
    return (given in (rule.get("values") or [])) == _LISTED[operator]
