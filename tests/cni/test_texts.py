"""Each log line starts with what it is about: a VF with its PF, a pod, a file, or the socket."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cni

_MODULES = sorted(Path(cni.__file__).parent.rglob("*.py"))
_LEVELS = {"debug", "info", "warning", "error", "exception", "log"}


def list_formats(module: Path) -> Iterator[str]:
    """The format of each call of the module's logger; a name is looked up among the module's constants."""
    tree = ast.parse(module.read_text())
    constants = {ast.unparse(n.targets[0]): n.value for n in ast.walk(tree) if isinstance(n, ast.Assign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS:
            if ast.unparse(node.func.value) != "logger":
                continue
            text = node.args[node.func.attr == "log"]
            found = constants.get(ast.unparse(text), text)
            yield str(found.value) if isinstance(found, ast.Constant) else ast.unparse(found)


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: path.stem)
def test_a_log_line_starts_with_its_object(module: Path) -> None:
    """Then comes the event: `eth0 VF 3 (0000:3b:02.3): …`."""
    for text in list_formats(module):
        assert text.startswith(("%s: ", "%s/%s: ", "CNI socket: ")) or text == "%s", text


def test_formats_are_found() -> None:
    """Else the test above would pass without looking at anything."""
    assert sum(1 for module in _MODULES for _ in list_formats(module)) > 40
