"""VLANs of a bridge's port, as they go over netlink."""

from hypothesis import given
from hypothesis import strategies as st

from sriovdp.kernel.rtnl.bridge import UNTAGGED_PVID, encode_vlans, read_vlans


@given(st.sets(st.integers(1, 4094), max_size=80), st.integers(1, 4094))
def test_what_is_written_is_what_is_read(tagged: set[int], untagged: int) -> None:
    """Spans too, of which the message has both ends."""
    vlans = {**dict.fromkeys(tagged, 0), untagged: UNTAGGED_PVID}
    assert read_vlans([encode_vlans(7, vlans)], 7) == vlans
    assert read_vlans([encode_vlans(7, vlans)], 8) == {}


def test_all_vlans_fit_into_one_message() -> None:
    """The kernel's answer has 32 KiB at most."""
    assert len(encode_vlans(7, dict.fromkeys(range(1, 4095), 0))) < 100


def test_pieces_of_a_span_in_one_message() -> None:
    """The kernel writes ports one after the other."""
    one, two = encode_vlans(7, {5: 0, 6: 0, 9: UNTAGGED_PVID}), encode_vlans(8, {7: 0})
    assert read_vlans([one, two], 8) == {7: 0}
    assert read_vlans([one, two], 7) == {5: 0, 6: 0, 9: UNTAGGED_PVID}
