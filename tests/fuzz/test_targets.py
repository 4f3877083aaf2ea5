"""A short run of each target, with dice in place of the fuzzer, and the proof that faults are found."""

import pytest

from sriovdp.state.journal import Original
from tests.fuzz import samples
from tests.fuzz.dice import Dice
from tests.fuzz.documents import make_document
from tests.fuzz.targets import Target, check_types, list_targets

INPUTS = 3_000


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
