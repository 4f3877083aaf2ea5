"""The journal: complete or not there, and read back as written."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from sriovdp.errors import InUseError, JournalError
from sriovdp.model import VfSettings
from sriovdp.state.journal import Attachment, Journal, Original

ATTACHMENT = Attachment(
    container_id="c1",
    ifname="net1",
    network="net-a",
    device="0000:01:10.2",
    mode="kernel",
    original=Original(
        "igbvf",
        VfSettings("02:00:00:00:00:01", vlan=5, trust=False),
        "eth3",
        ("alt",),
        "02:00:00:00:00:01",
        1500,
        up=True,
    ),
    netns="/run/netns/a",
    netns_dev=4,
    netns_ino=4026532177,
    boot_id="b",
    config={"name": "net-a", "ipam": {"type": "host-local"}},
    args="K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0",
    path="/opt/cni/bin",
)


def test_attachment_is_read_back_as_written(tmp_path: Path) -> None:
    """Nothing of an attachment is lost on its way to the disk and back."""
    journal = Journal(tmp_path / "journal")

    journal.write_attachment(ATTACHMENT)
    journal.write_attachment(replace(ATTACHMENT, ifname="net2", original=Original("vfio-pci", None), mode="dpdk"))

    assert journal.find_attachment("c1", "net1") == ATTACHMENT
    assert [attachment.ifname for attachment in journal.attachments()] == ["net1", "net2"]


def test_removed_attachment_is_gone_and_removing_twice_is_fine(tmp_path: Path) -> None:
    """Removing is safe to repeat."""
    journal = Journal(tmp_path)
    journal.write_attachment(ATTACHMENT)

    journal.remove_attachment(ATTACHMENT)
    journal.remove_attachment(ATTACHMENT)

    assert (journal.find_attachment("c1", "net1"), journal.attachments()) == (None, [])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 99}'])
def test_file_that_can_not_be_understood_is_named(tmp_path: Path, text: str) -> None:
    """A damaged or foreign file is an error with its path, never silently skipped."""
    (tmp_path / "attachment-c1-net1.json").write_text(text)

    with pytest.raises(JournalError, match="attachment-c1-net1"):
        Journal(tmp_path).attachments()


def test_damaged_file_hides_no_other(tmp_path: Path) -> None:
    """A survey gives all that can be read, and of the rest the VF where the text still names it."""
    journal = Journal(tmp_path)
    journal.write_attachment(ATTACHMENT)
    whole = (tmp_path / "attachment-c1-net1.json").read_text()
    (tmp_path / "attachment-c2-net1.json").write_text(whole[: len(whole) // 2].replace("01:10.2", "01:10.4"))
    (tmp_path / "attachment-c3-net1.json").write_text("")

    attachments, damages = journal.survey()

    assert attachments == [ATTACHMENT]
    assert [(damage.path.name, damage.device) for damage in damages] == [
        ("attachment-c2-net1.json", "0000:01:10.4"),
        ("attachment-c3-net1.json", None),
    ]
    assert "can not be understood" in damages[0].reason


def test_file_of_the_first_release_is_read(tmp_path: Path) -> None:
    """Fields that came later have what they mean where they are missing."""
    journal = Journal(tmp_path)
    journal.write_attachment(ATTACHMENT)
    path = tmp_path / "attachment-c1-net1.json"
    record = json.loads(path.read_text())
    for key in ("interface", "unsupported", "result", "device_info"):
        del record[key]
    for key in ("promisc", "allmulti"):
        del record["original"][key]
    path.write_text(json.dumps(record))

    assert journal.find_attachment("c1", "net1") == ATTACHMENT


def test_journal_on_a_full_disk_is_told(tmp_path: Path) -> None:
    """A folder that can not be made stands for a disk that takes nothing."""
    (tmp_path / "file").touch()
    Journal(tmp_path / "journal").check_writable()
    with pytest.raises(JournalError, match="writing below"):
        Journal(tmp_path / "file/journal").check_writable()


def test_file_that_vanishes_while_it_is_read_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DEL may remove a file between the listing and the reading of another thread."""
    journal = Journal(tmp_path)
    journal.write_attachment(ATTACHMENT)
    listed = [tmp_path / "attachment-gone-net1.json", *tmp_path.glob("attachment-*")]
    monkeypatch.setattr(journal, "_paths", lambda: listed)

    assert journal.attachments() == [ATTACHMENT]


def test_a_journal_has_one_agent(tmp_path: Path) -> None:
    """A second claim is refused while the first lasts, and no longer."""
    with Journal(tmp_path).claim(), pytest.raises(InUseError, match="another sriovdp agent"), Journal(tmp_path).claim():
        pass
    with Journal(tmp_path).claim():
        assert Journal(tmp_path).attachments() == []


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power loss before the rename leaves the state of before, and no litter."""
    journal = Journal(tmp_path)
    journal.write_attachment(ATTACHMENT)

    def fail(_source: str, _target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(JournalError, match="No space left on device"):
        journal.write_attachment(replace(ATTACHMENT, phase="attached"))

    assert [path.name for path in tmp_path.iterdir()] == ["attachment-c1-net1.json"]
    assert journal.find_attachment("c1", "net1") == ATTACHMENT


def test_new_file_is_flushed_with_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that replaces another needs no entry in the directory; its content is flushed all the same."""
    flushed: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    journal = Journal(tmp_path / "journal")

    journal.write_attachment(ATTACHMENT)
    assert flushed == [False, True]
    journal.write_attachment(replace(ATTACHMENT, phase="attached"))
    assert flushed == [False, True, False]


def test_pf_record_carries_the_version(tmp_path: Path) -> None:
    """Records of PFs are versioned like those of attachments."""
    Journal(tmp_path).write_pf("0000:01:00.0", {"previous": 0, "wanted": 7})

    assert json.loads((tmp_path / "pf-0000:01:00.0.json").read_text()) == {"version": 1, "previous": 0, "wanted": 7}


@pytest.mark.parametrize(
    ("args", "owner"),
    [("K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0", "pod ns/web-0 (net1)"), ("", "container c1 (net1)")],
)
def test_owner_is_told_as_a_person_knows_it(args: str, owner: str) -> None:
    """A refusal names the pod where the runtime told it."""
    assert replace(ATTACHMENT, args=args).owner == owner
