"""A short run of the launcher's fuzzer, and the proof that it finds what it looks for."""

import subprocess
from pathlib import Path

import pytest

from tests.cni.launching import SANITIZED, SOURCE, TIMEOUT

ROUNDS = 20000


def fuzz(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build the fuzzer with the sources of this folder and run it."""
    subprocess.run([*SANITIZED, "-O1", "-o", target, folder / "fuzz.c"], check=True)
    return subprocess.run([target, str(ROUNDS), "1"], capture_output=True, text=True, timeout=TIMEOUT, check=False)


def test_no_reply_breaks_the_launcher(tmp_path: Path) -> None:
    """Thousands of broken replies: no undefined behaviour, and nothing is taken for a reply that is none."""
    finished = fuzz(SOURCE.parent, tmp_path / "fuzz")

    assert (finished.returncode, finished.stderr) == (0, f"fuzz: {ROUNDS} replies, no fault\n")


@pytest.mark.parametrize(
    ("sound", "broken", "found"),
    [
        (" || get_u32(reply + 12) > STDOUT_MAX", "", "no room"),
        ("memcmp(reply, MAGIC, 4) != 0", "0", "without a header"),
        ("get_u32(reply + 8) > EXIT_CODE_MAX || ", "", "exit code over 255"),
        ("used + 7 < size", "1", "AddressSanitizer"),
    ],
    ids=["size", "magic", "exit code", "escape"],
)
def test_fuzzer_finds_a_fault(tmp_path: Path, sound: str, broken: str, found: str) -> None:
    """A launcher that lost one of its checks does not pass."""
    for source in SOURCE.parent.glob("*.[ch]"):
        text = source.read_text()
        if source == SOURCE:
            assert text.count(sound) == 1
            text = text.replace(sound, broken)
        (tmp_path / source.name).write_text(text)

    finished = fuzz(tmp_path, tmp_path / "fuzz")

    assert finished.returncode != 0
    assert found in finished.stderr
