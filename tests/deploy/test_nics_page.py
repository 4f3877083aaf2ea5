"""docs/nics.md names a test for each thing that was seen: these tests are there."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
_RECORDINGS = "tests/recordings/test_recordings.py"


def test_each_test_that_the_page_names_is_there() -> None:
    """A test that was renamed or removed proves nothing any more."""
    table = (CHECKOUT / "docs/nics.md").read_text().partition("## Drivers")[0]
    named = re.findall(r"`(?:((?:\.\./cluster/)?test_\w+\.py)::)?(test_\w+)`", table)
    assert named
    for file, name in named:
        path = f"tests/lab/{file}" if file else _RECORDINGS
        assert re.search(rf"^(async )?def {name}\(", (CHECKOUT / path).read_text(), re.MULTILINE), f"{path}: {name}"
