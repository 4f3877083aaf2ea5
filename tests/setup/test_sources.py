"""The backports source is derived from whatever apt sources a machine has."""

from pathlib import Path

import pytest

from setup.sources import add_backports
from setup.steps import SetupError

ADDED = "sources.list.d/sriovdp-backports.sources"

DEB822 = """\
# a comment
Types: deb
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://mirror.test/security
Suites: bookworm-security
Components: main
"""

EMBEDDED_KEY = """\
Types: deb
URIs: http://mirror.test/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 AAAA
 -----END PGP PUBLIC KEY BLOCK-----
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    """An apt folder without sources."""
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def _read_fields(apt: Path) -> dict[str, str]:
    lines = [line for line in (apt / ADDED).read_text().splitlines() if not line.startswith("#")]
    return dict(line.split(": ", 1) for line in lines if not line.startswith(" "))


def test_a_deb822_source_gives_place_and_key(apt: Path) -> None:
    """URI and key are the release's own; only main is asked for."""
    (apt / "sources.list.d/debian.sources").write_text(DEB822)
    assert add_backports("bookworm", apt)
    assert _read_fields(apt) == {
        "Types": "deb",
        "URIs": "http://mirror.test/debian",
        "Suites": "bookworm-backports",
        "Components": "main",
        "Signed-By": "/usr/share/keyrings/debian.gpg",
    }


@pytest.mark.parametrize("name", ["sources.list", "sources.list.d/debian.list"])
def test_a_one_line_source_gives_place_and_options(apt: Path, name: str) -> None:
    """The older style, with options in brackets, in either file."""
    (apt / name).write_text(
        "deb-src http://x.test bookworm main\ndeb [signed-by=/k.gpg] http://m.test/d bookworm main\n"
    )
    assert add_backports("bookworm", apt)
    assert _read_fields(apt)["URIs"] == "http://m.test/d"
    assert _read_fields(apt)["Signed-By"] == "/k.gpg"


def test_an_embedded_key_is_taken_along(apt: Path) -> None:
    """A key of several lines stays what it is."""
    (apt / "sources.list.d/debian.sources").write_text(EMBEDDED_KEY)
    assert add_backports("bookworm", apt)
    assert EMBEDDED_KEY.partition("Signed-By:")[2].strip() in (apt / ADDED).read_text()


def test_nothing_is_added_twice(apt: Path) -> None:
    """A machine that has the suite keeps its sources as they are, in any file."""
    (apt / "sources.list.d/debian.sources").write_text(DEB822)
    assert add_backports("bookworm", apt)
    before = (apt / ADDED).read_text()
    assert not add_backports("bookworm", apt)
    assert (apt / ADDED).read_text() == before


@pytest.mark.parametrize(
    "sources",
    [
        "",
        DEB822.replace("Types: deb\n", "Types: deb-src\n"),
        DEB822.replace("Types: deb\n", "Types: deb\nEnabled: no\n"),
    ],
    ids=["none", "source packages only", "disabled"],
)
def test_without_a_source_of_the_release_it_is_reported_what_to_do(apt: Path, sources: str) -> None:
    """No guess is made about where a machine gets its packages."""
    (apt / "sources.list.d/debian.sources").write_text(sources)
    with pytest.raises(SetupError, match="add a source with the suite bookworm-backports"):
        add_backports("bookworm", apt)
