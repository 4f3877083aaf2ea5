"""The machine's own apt sources, and the backports suite derived from them.

A release that is too old for the lab (QEMU 8, Linux 6.12) gets both from its own backports, from the same place and
signed by the same key as the release itself: sources.list(5), one-line style and deb822 style.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from setup.steps import SetupError, say

_APT = Path("/etc/apt")
_FILE = "sources.list.d/sriovdp-backports.sources"
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)")
_OPTIONS = {"signed-by": "Signed-By", "trusted": "Trusted", "check-valid-until": "Check-Valid-Until"}


@dataclass(frozen=True)
class Source:
    """One enabled binary source. `options` are deb822 fields that say how to trust it."""

    uris: str
    suites: tuple[str, ...]
    options: tuple[tuple[str, str], ...]


def add_backports(codename: str, apt: Path = _APT) -> bool:
    """Add the release's backports; gives whether anything was added. Raises SetupError without a source to go by."""
    sources = list(_read_sources(apt))
    suite = f"{codename}-backports"
    if any(suite in source.suites for source in sources):
        return False
    release = next((source for source in sources if codename in source.suites), None)
    if release is None:
        raise SetupError(
            f"no apt source of this machine has the suite {codename}, so its backports cannot be derived; "
            f"add a source with the suite {suite} to {apt}/sources.list.d yourself"
        )
    fields = [("Types", "deb"), ("URIs", release.uris), ("Suites", suite), ("Components", "main"), *release.options]
    text = "".join(f"{name}: {value}\n" for name, value in fields)
    (apt / _FILE).write_text(f"# Added by `make setup` of sriovdp for QEMU and the kernel of its lab.\n{text}")
    say(f"added the apt source {suite} in {apt / _FILE}")
    return True


def read_codename() -> str:
    """This machine's release, like bookworm. Raises SetupError when it has none."""
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not found:
        raise SetupError("/etc/os-release names no release; the lab is made for Debian 12 or newer")
    return found[1]


def find_mirror(codename: str, apt: Path = _APT) -> str:
    """Where this machine's own release comes from. Raises SetupError when no source has it."""
    found = next((source.uris.split()[0] for source in _read_sources(apt) if codename in source.suites), None)
    if found is None:
        raise SetupError(f"no apt source of this machine has the suite {codename}; add one to {apt}/sources.list.d")
    return found


def _read_sources(apt: Path) -> Iterator[Source]:
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]:
        if path.is_file():
            yield from _read_one_line(path.read_text())
    for path in sorted((apt / "sources.list.d").glob("*.sources")):
        yield from _read_deb822(path.read_text())


def _read_one_line(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        found = _ONE_LINE.match(line.strip())
        if found and "main" in found["components"].split():
            pairs = [pair.partition("=") for pair in (found["options"] or "").split()]
            options = tuple((_OPTIONS[key], value) for key, _, value in pairs if key in _OPTIONS)
            yield Source(found["uri"], (found["suite"],), options)


def _read_deb822(text: str) -> Iterator[Source]:
    without_comments = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", without_comments):
        # a line that begins with a space goes on with the field before it, as an embedded key does
        fields = {
            key.lower(): value.strip()
            for key, value in re.findall(r"^(\S+?):((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        }
        enabled = fields.get("enabled", "yes").lower() not in {"no", "false", "0"}
        if enabled and "deb" in fields.get("types", "").split() and "main" in fields.get("components", "").split():
            options = tuple((name, fields[key]) for key, name in _OPTIONS.items() if key in fields)
            yield Source(fields["uris"], tuple(fields["suites"].split()), options)
