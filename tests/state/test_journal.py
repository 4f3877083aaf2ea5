"""The journal: complete or not there, and read back as written."""

import json
import os
import stat
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.errors import InUseError, JournalError
from sriovdp.model import VfSettings
from sriovdp.state.journal import LEFT_OUT, Attachment, Journal, Original

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

    assert attachments == [replace(ATTACHMENT, config=LEFT_OUT, result=LEFT_OUT)]
    assert [(damage.path.name, damage.device) for damage in damages] == [
        ("attachment-c2-net1.json", "0000:01:10.4"),
        ("attachment-c3-net1.json", None),
    ]
    assert "cannot be understood" in damages[0].reason


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


def test_journal_on_a_full_disk_is_reported(tmp_path: Path) -> None:
    """A folder that cannot be made stands for a disk that takes nothing."""
    (tmp_path / "file").touch()
    Journal(tmp_path / "journal").check_writable()
    with pytest.raises(JournalError, match="writing below"):
        Journal(tmp_path / "file/journal").check_writable()


def test_file_that_vanishes_while_it_is_read_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DEL may remove a file between the listing and the reading of another thread."""
    journal = Journal(tmp_path)
    journal.write_attachment(ATTACHMENT)
    listed = ["attachment-gone-net1.json", *(path.name for path in tmp_path.glob("attachment-*"))]
    monkeypatch.setattr(journal, "_list_names", lambda _: listed)

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


def test_owner_is_fit_for_a_terminal() -> None:
    """An interface's name may hold what a terminal acts on: the kernel takes it, and so does libcni."""
    assert replace(ATTACHMENT, args="", ifname="\x1b[2J").owner.endswith(" (\\x1b[2J)")


@pytest.mark.parametrize(
    ("args", "owner"),
    [("K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0", "pod ns/web-0 (net1)"), ("", "container c1 (net1)")],
)
def test_owner_is_reported_as_a_person_knows_it(args: str, owner: str) -> None:
    """A refusal names the pod where the runtime named it."""
    assert replace(ATTACHMENT, args=args).owner == owner


def _make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


NO_FILE: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "FIFO": os.mkfifo,
    "link": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "huge": _make_huge,
    "deep": lambda path: path.write_text("[" * 200_000),
    "deep object": lambda path: path.write_text('{"a":' * 200_000),
    "not UTF-8": lambda path: path.write_bytes(b'{"version": 1, "device": "\xff"}'),
    "long number": lambda path: path.write_text('{"version": ' + "9" * 5000 + "}"),
    "newer": lambda path: path.write_text('{"version": 2, "device": "0000:01:10.6", "shape": {"is": "another"}}'),
}


@pytest.mark.parametrize("kind", NO_FILE)
def test_what_is_no_entry_is_a_damage_and_hides_no_other(tmp_path: Path, kind: str) -> None:
    """Neither an unexpected exception, nor a wait that does not end."""
    journal = Journal(tmp_path)
    journal.write_attachment(ATTACHMENT)
    NO_FILE[kind](tmp_path / "attachment-c2-net1.json")

    for _ in range(2):
        attachments, [damage] = journal.survey()
        assert [entry.key for entry in attachments] == ["c1-net1"]
        assert damage.path.name == "attachment-c2-net1.json"
    with pytest.raises(JournalError, match="attachment-c2-net1"):
        journal.find_attachment("c2", "net1")
    assert damage.device == ("0000:01:10.6" if kind == "newer" else None)


WRONG = [
    {"container_id": 5},
    {"container_id": "c9"},
    {"ifname": "a\0b"},
    {"device": "0000:01:10"},
    {"device": None},
    {"mode": "other"},
    {"phase": ["attached"]},
    {"netns": "/run/a\0b"},
    {"netns_ino": "1"},
    {"netns_ino": True},
    {"netns_ino": 1e30},
    {"released": "yes"},
    {"args": 7},
    {"config": []},
    {"result": "text"},
    {"original": None},
    {"original": {"driver": 1, "settings": None}},
    {"original": {"driver": "igbvf", "settings": {"vlan": 1}}},
    {"original": {"driver": "igbvf", "settings": {"mac": "m", "vlan": "1"}}},
    {"original": {"driver": "igbvf", "settings": None, "altnames": [1]}},
    {"unsupported": {"a": 1}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_value_of_a_wrong_type_is_a_damage(tmp_path: Path, wrong: dict[str, object]) -> None:
    """Whoever uses an attachment need not doubt its values; the VF that it is about is known."""
    journal = Journal(tmp_path)
    journal.write_attachment(ATTACHMENT)
    path = tmp_path / "attachment-c1-net1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))

    attachments, damages = journal.survey()

    assert (attachments, len(damages)) == ([], 1)
    assert (damages[0].device is None) == ("device" in wrong)


def test_fields_of_a_later_release_are_left_alone(tmp_path: Path) -> None:
    """Fields only come to what there was, so an older program can release what a newer one attached."""
    journal = Journal(tmp_path)
    journal.write_attachment(ATTACHMENT)
    path = tmp_path / "attachment-c1-net1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"from_tomorrow": [1]}))

    assert journal.find_attachment("c1", "net1") == ATTACHMENT


@given(st.one_of(st.binary(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_no_content_raises_what_nobody_expects(tmp_path_factory: pytest.TempPathFactory, content: bytes | str) -> None:
    """The file is understood or damaged, and a survey gives it once."""
    folder = tmp_path_factory.getbasetemp() / "journal-of-anything"
    folder.mkdir(exist_ok=True)
    (folder / "attachment-c1-net1.json").write_bytes(content if isinstance(content, bytes) else content.encode())

    attachments, damages = Journal(folder).survey()

    assert len(attachments) + len(damages) == 1


def test_survey_keeps_little_and_nothing_of_what_is_gone(tmp_path: Path) -> None:
    """Large configurations stay on the disk, and pods that are gone leave nothing."""
    journal = Journal(tmp_path)
    big = replace(ATTACHMENT, config={"x": [f"{number:06}" for number in range(5_000)]})
    tracemalloc.start()
    try:
        for number in range(20):
            entry = replace(big, container_id=f"c{number}")
            journal.write_attachment(entry)
            journal.survey()
            if number >= 10:
                journal.remove_attachment(entry)
        attachments, _ = journal.survey()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(attachments) == len(journal._seen) == 10
    assert kept < 400_000, "ten of them parsed take megabytes"
    assert journal.find_attachment("c3", "net1") == replace(big, container_id="c3")


def test_a_surveyed_attachment_cannot_be_written(tmp_path: Path) -> None:
    """It has no configuration: its release would forget the addresses."""
    journal = Journal(tmp_path)
    journal.write_attachment(ATTACHMENT)
    with pytest.raises(ValueError, match="not whole"):
        journal.write_attachment(replace(journal.survey()[0][0], phase="releasing"))


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    """A survey remembers a version of a file, not the file."""
    journal = Journal(tmp_path)
    for phase in ("adding", "attached", "releasing"):
        journal.write_attachment(replace(ATTACHMENT, phase=phase))
        assert [entry.phase for entry in journal.survey()[0]] == [phase]


def test_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    """Who takes it for empty gives pods VFs that others have."""
    (tmp_path / "journal").touch()
    with pytest.raises(JournalError, match="Not a directory"):
        Journal(tmp_path / "journal").survey()


def test_claim_removes_what_killed_processes_left_half_written(tmp_path: Path) -> None:
    """What a living process writes just now stays."""
    for name in (".999999999-1", f".{os.getpid()}-1", "attachment-x-y.json", ".keep"):
        (tmp_path / name).touch()
    for folder in ("lock", ".999999999-2"):
        (tmp_path / folder).mkdir()
    with Journal(tmp_path).claim(), pytest.raises(InUseError), Journal(tmp_path).claim():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".{os.getpid()}-1",
        ".999999999-2",  # a folder, which none of them made
        ".keep",
        "attachment-x-y.json",
        "lock",
    ]


def test_a_pf_that_was_changed_is_known(tmp_path: Path) -> None:
    """Until its record is removed; attachments are no records of PFs."""
    journal = Journal(tmp_path)
    assert not journal.has_pfs()
    (tmp_path / "attachment-c1-net1.json").write_text("{}")
    assert not journal.has_pfs()
    journal.write_pf("0000:01:00.0", {})
    assert journal.has_pfs()
