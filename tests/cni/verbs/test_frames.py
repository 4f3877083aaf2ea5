"""Frames of announcements, byte for byte as the RFCs have them, on Ethernet and InfiniBand."""

import pytest

from cni.verbs.frames import Announcement, build_announcement

MAC = bytes.fromhex("020000000001")
# queue pair 0x48, link-local prefix, GUID (RFC 4391, section 9.1.1)
HCA = bytes.fromhex("00000048fe800000000000000002c903000a1b2c")
# partition 0x8001, link-local scope (RFC 4391, section 4)
BROADCAST = bytes.fromhex("00ffffffff12401b8001000000000000ffffffff")


def test_gratuitous_arp_asks_for_its_own_address() -> None:
    """Sender and target are the same address (RFC 5227, section 3)."""
    announcement = build_announcement("10.0.0.2/24", MAC)

    assert (announcement.protocol, announcement.to.hex()) == (0x0806, "ffffffffffff")
    assert announcement.packet.hex() == (
        "0001" "0800" "06" "04" "0001" "020000000001" "0a000002" "ffffffffffff" "0a000002"
    )  # fmt: skip


def test_gratuitous_arp_of_infiniband() -> None:
    """Hardware type 32 and addresses of 20 bytes (RFC 4391, section 9.2), to the partition's broadcast group."""
    announcement = build_announcement("10.0.0.2/24", HCA, BROADCAST)

    assert (announcement.protocol, announcement.to) == (0x0806, BROADCAST)
    assert announcement.packet.hex() == (
        "0020" "0800" "14" "04" "0001"
        "00000048fe800000000000000002c903000a1b2c" "0a000002"
        "00ffffffff12401b8001000000000000ffffffff" "0a000002"
    )  # fmt: skip
    assert len(announcement.packet) == 56


def test_unsolicited_advertisement() -> None:
    """To all nodes, with hop limit 255 and the override flag (RFC 4861, section 7.2.6)."""
    announcement = build_announcement("fd00::2/64", MAC)

    assert (announcement.protocol, announcement.to.hex()) == (0x86DD, "333300000001")
    assert announcement.packet[:8].hex() == "6000000000203aff"
    assert announcement.packet[40:42].hex() + announcement.packet[44:48].hex() == "880020000000"
    assert announcement.packet[64:].hex() == "0201020000000001"


def test_unsolicited_advertisement_of_infiniband() -> None:
    """Its option is 3 units of 8 bytes, with two zeros before the address (RFC 4391, section 9.3).

    ff02::1 is a group of the interface's partition and scope (section 4).
    """
    announcement = build_announcement("fd00::2/64", HCA, BROADCAST)

    assert announcement.to.hex() == "00ffffffff12601b800100000000000000000001"
    assert announcement.packet[:8].hex() == "6000000000303aff"
    assert announcement.packet[64:].hex() == "0203000000000048fe800000000000000002c903000a1b2c"


@pytest.mark.parametrize(
    "announcement",
    [build_announcement("fd00::2/64", MAC), build_announcement("fd00::2/64", HCA, BROADCAST)],
    ids=["ethernet", "infiniband"],
)
def test_checksum_of_an_advertisement(announcement: Announcement) -> None:
    """Over a pseudo header too (RFC 4443, section 2.3)."""
    packet = announcement.packet
    pseudo = packet[8:40] + (len(packet) - 40).to_bytes(4) + (58).to_bytes(4) + packet[40:]
    total = sum(int.from_bytes(pseudo[at : at + 2]) for at in range(0, len(pseudo), 2))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
