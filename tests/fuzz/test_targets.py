"""A short run of each target, with dice in place of the fuzzer, and the proof that faults are found."""

import random

import pytest

from sriovdp.state.journal import Original
from tests.fuzz import samples
from tests.fuzz.documents import make_document
from tests.fuzz.targets import Target, check_types, list_targets

INPUTS = 3_000


class Dice:
    """Choices by a seeded random number generator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._left = self._random.randrange(200)

    def ConsumeIntInRange(self, least: int, most: int) -> int:  # noqa: N802 - the fuzzer's names
        """Give a number."""
        return self._random.randint(least, most)

    def ConsumeUnicode(self, length: int) -> str:  # noqa: N802
        """Give a text."""
        return "".join(chr(self._random.choice((0, 32, 47, 48, 97, 0x300, 0xD800, 0x1F600))) for _ in range(length))

    def ConsumeBytes(self, length: int) -> bytes:  # noqa: N802
        """Give bytes."""
        return self._random.randbytes(length)

    def remaining_bytes(self) -> int:
        """How much is left to decide by."""
        return self._left


@pytest.fixture(scope="module")
def targets() -> dict[str, Target]:
    """All targets."""
    return list_targets()


@pytest.mark.parametrize("name", list(list_targets()))
def test_no_input_breaks_a_reader(targets: dict[str, Target], name: str) -> None:
    """Nothing but the errors that callers handle."""
    for seed in range(INPUTS):
        targets[name].run(Dice(seed))


def test_documents_are_of_all_kinds() -> None:
    """Sound ones and others, cut and deep ones: else the run above proves nothing."""
    made = {make_document(Dice(seed), samples.NETCONFS) for seed in range(INPUTS)}
    assert len(made) > INPUTS * 0.8
    assert any(len(document) > 100_000 for document in made)
    assert any(b"\\u0000" in document for document in made)


def test_a_wrong_type_is_found() -> None:
    """A field that is not what its annotation says."""
    with pytest.raises(AssertionError, match=r"Original\.mtu is 'x'"):
        check_types(Original("igbvf", None, mtu="x"))  # type: ignore[arg-type]
    check_types(Original("igbvf", None, mtu=1500))
