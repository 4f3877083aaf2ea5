"""The verbs as far as they can be tested without a NIC: recovery, and what a request has to be."""

import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cni.protocol.wire import Request
from cni.verbs import release
from cni.verbs.dispatch import Verbs
from cni.verbs.recovery import Recovery
from cni.vf import restore
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.state.journal import Attachment, Damage, Journal, Original, read_boot_id
from sriovdp.state.locks import Locks
from tests.fakes.recovering import recover

DEVICE = "0000:01:10.2"


@pytest.fixture
def verbs(tmp_path: Path) -> Verbs:
    """The verbs on a node without any VF, where releasing one is releasing its addresses."""
    return Verbs(Sysfs(tmp_path / "sys"), Journal(tmp_path / "journal"), Locks(tmp_path / "journal/locks"))


@pytest.fixture
def recovery(verbs: Verbs) -> Recovery:
    """The recovery of that node."""
    return Recovery(verbs.sysfs, verbs.journal, verbs.locks)


@pytest.fixture
def owed(tmp_path: Path) -> Attachment:
    """A release that was not finished; its IPAM plugin writes down each call."""
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\necho $CNI_COMMAND >>{tmp_path / 'calls'}\n")
    plugin.chmod(0o755)
    config = {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "ipam": {"type": "plugin"}}
    return Attachment(
        container_id="c1",
        ifname="net1",
        network="net-a",
        device=DEVICE,
        mode="kernel",
        original=Original("igbvf", None, "eth1"),
        netns="/run/netns/gone",
        netns_dev=0,
        netns_ino=0,
        boot_id=read_boot_id(),
        config=config,
        path=str(tmp_path),
        phase="releasing",
    )


def test_recovery_finishes_a_release(verbs: Verbs, recovery: Recovery, owed: Attachment, tmp_path: Path) -> None:
    """What a DEL could not finish is finished, addresses included, and forgotten."""
    verbs.journal.write_attachment(owed)
    recover(recovery)
    assert (tmp_path / "calls").read_text() == "DEL\n"
    assert verbs.journal.attachments() == []


def test_recovery_leaves_alone_what_a_del_finished_meanwhile(
    verbs: Verbs, recovery: Recovery, owed: Attachment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the journal and the lock of the VF all may change: the VF may be another pod's by then."""
    verbs.journal.write_attachment(owed)
    looked, listed = threading.Event(), verbs.journal.attachments()

    def look() -> tuple[list[Attachment], list[Damage]]:
        looked.set()
        return listed, []

    monkeypatch.setattr(verbs.journal, "survey", look)
    with verbs.locks.hold(DEVICE):
        thread = threading.Thread(target=recover, args=(recovery,))
        thread.start()
        assert looked.wait(10)
        verbs.journal.remove_attachment(owed)
    thread.join(10)

    assert not thread.is_alive()
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("broken", ["folder", "nul"])
def test_recovery_contains_a_broken_entry(
    verbs: Verbs, recovery: Recovery, owed: Attachment, tmp_path: Path, broken: str
) -> None:
    """A device-info file that became a folder, or a path that is none, keeps back neither its VF nor the next entry."""
    path = str(tmp_path / "info") if broken == "folder" else f"{tmp_path}/a\0b"
    (tmp_path / "info").mkdir()
    verbs.journal.write_attachment(replace(owed, container_id="c0", device_info=path))
    verbs.journal.write_attachment(owed)

    assert recover(recovery) == {}

    assert verbs.journal.attachments() == []
    assert (tmp_path / "calls").read_text() == "DEL\nDEL\n"


def test_recovery_contains_every_exception(
    verbs: Verbs, recovery: Recovery, owed: Attachment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no code foresaw: the entry's own VF is given to no pod, the others are released."""
    real = restore.restore_vf

    def fail_once(sysfs: Sysfs, attachment: Attachment, netns_fd: int | None) -> None:
        if attachment.container_id == "c0":
            raise ZeroDivisionError("as never seen before")
        real(sysfs, attachment, netns_fd)

    monkeypatch.setattr(release, "restore_vf", fail_once)
    verbs.journal.write_attachment(replace(owed, container_id="c0", device="0000:01:10.4"))
    verbs.journal.write_attachment(owed)

    failed = recover(recovery)

    assert [(device, "as never seen before" in why) for device, why in failed.items()] == [("0000:01:10.4", True)]
    assert [entry.container_id for entry in verbs.journal.attachments()] == ["c0"]


def test_recovery_leaves_running_pods_alone(verbs: Verbs, recovery: Recovery, owed: Attachment, tmp_path: Path) -> None:
    """An attachment of this boot that is complete is a pod's, at the agent's start as well."""
    verbs.journal.write_attachment(replace(owed, phase="attached"))
    recover(recovery)
    assert len(verbs.journal.attachments()) == 1
    assert not (tmp_path / "calls").exists()


def test_recovery_after_a_reboot_frees_the_addresses(
    verbs: Verbs, recovery: Recovery, owed: Attachment, tmp_path: Path
) -> None:
    """Pods of another boot are gone with their VFs; what they reserved is not."""
    verbs.journal.write_attachment(replace(owed, phase="attached", boot_id="another"))
    recover(recovery)
    assert (tmp_path / "calls").read_text() == "DEL\n"
    assert verbs.journal.attachments() == []


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"command": "FETCH"}, 4, "unknown CNI_COMMAND: FETCH"),
        ({"container_id": "", "ifname": ""}, 4, "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing"),
        ({"container_id": "../../etc"}, 4, "CNI_CONTAINERID"),
        ({"ifname": "a/b"}, 4, "CNI_IFNAME"),
        ({"ifname": "sixteen-letters-"}, 4, "CNI_IFNAME"),
        ({"netns_errno": 2}, 8, "No such file"),
        ({"stdin": b"{"}, 6, "JSON"),
    ],
)
def test_requests_that_can_not_be_served(verbs: Verbs, changes: dict[str, object], code: int, message: str) -> None:
    """Each fault has the specification's code and names what is wrong; nothing is written."""
    config = {"cniVersion": "1.0.0", "name": "net-a", "type": "sriov", "deviceID": DEVICE}
    fields: dict[str, object] = {
        "command": "ADD",
        "container_id": "c1",
        "netns": "/run/netns/none",
        "ifname": "net1",
        "args": "",
        "path": "",
        "stdin": json.dumps(config).encode(),
    }
    reply = verbs.handle(Request(**(fields | changes)), None)  # type: ignore[arg-type]
    error = json.loads(reply.stdout)
    assert (reply.exit_code, error["code"]) == (1, code)
    assert message in error["msg"]
    assert verbs.journal.attachments() == []


def ask(verbs: Verbs, command: str, **keys: object) -> dict[str, object]:
    """Run a verb without a container; gives the error, or nothing."""
    config = {"cniVersion": "1.1.0", "name": "net-a", "type": "sriov"} | keys
    path = str(config.pop("path", ""))
    container = ("c1", "/run/netns/none", "net1") if command in {"DEL", "ADD", "CHECK"} else ("", "", "")
    reply = verbs.handle(Request(command, *container, "", path, json.dumps(config).encode()), None)
    return json.loads(reply.stdout) if reply.stdout else {}


def test_status_of_a_node_without_vfs(verbs: Verbs) -> None:
    """No ADD can be served (50), and the reason is reported."""
    error = ask(verbs, "STATUS")
    assert (error["code"], "has no VFs" in str(error["msg"])) == (50, True)


def test_gc_releases_by_network_name_and_goes_on_after_failures(verbs: Verbs, owed: Attachment, tmp_path: Path) -> None:
    """Another network's attachment stays, one that cannot be released does not hold up the next."""
    stuck = replace(owed, phase="attached", path="/nowhere")
    verbs.journal.write_attachment(stuck)
    verbs.journal.write_attachment(replace(owed, phase="attached", container_id="c2"))
    verbs.journal.write_attachment(replace(owed, phase="attached", container_id="c3", network="net-b"))
    verbs.journal.write_attachment(replace(owed, phase="attached", container_id="c4"))

    error = ask(verbs, "GC", **{"cni.dev/attachments": [{"containerID": "c4", "ifname": "net1"}]})

    assert "no IPAM plugin 'plugin'" in str(error["msg"])
    left = [(entry.container_id, entry.released) for entry in verbs.journal.attachments()]
    assert left == [("c1", True), ("c3", False), ("c4", False)]


def test_del_of_nothing_with_a_missing_ipam_plugin_succeeds(verbs: Verbs) -> None:
    """An ADD that failed for want of the plugin reserved nothing; its DEL must not keep the pod terminating."""
    assert ask(verbs, "DEL", ipam={"type": "absent"}, path="/nowhere") == {}


@pytest.mark.parametrize("command", ["ADD", "DEL", "GC", "STATUS", "CHECK"])
def test_no_verb_executes_a_path(verbs: Verbs, tmp_path: Path, command: str) -> None:
    """The runtime sends DEL after an ADD that was refused, and GC when it likes."""
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\necho $CNI_COMMAND >>{tmp_path / 'calls'}\n")
    plugin.chmod(0o755)
    (tmp_path / "bin").mkdir()
    more: dict[str, object] = {"cni.dev/valid-attachments": []} if command == "GC" else {"deviceID": DEVICE}

    error = ask(verbs, command, ipam={"type": "../plugin"}, path=str(tmp_path / "bin"), **more)

    assert not (tmp_path / "calls").exists()
    assert ("ipam.type" in str(error.get("msg"))) == (command != "DEL"), "a pod that was never attached can go"


def test_errors_carry_the_version_of_the_configuration(verbs: Verbs) -> None:
    """So that a caller of an older specification can read them."""
    assert ask(verbs, "GC", cniVersion="1.0.0")["cniVersion"] == "1.0.0"
    assert ask(verbs, "STATUS", cniVersion="7")["cniVersion"] == "1.1.0"


def test_work_under_way_is_not_taken_for_interrupted(
    verbs: Verbs, recovery: Recovery, owed: Attachment, tmp_path: Path
) -> None:
    """An ADD or DEL holds the lock of its VF; what is not locked and not done was left behind by a crash."""
    verbs.journal.write_attachment(replace(owed, phase="adding"))
    with verbs.locks.hold(DEVICE):
        assert recover(recovery) == {}
        assert len(verbs.journal.attachments()) == 1
    recover(recovery)
    assert verbs.journal.attachments() == []


def test_debug_log_reports_the_time_of_each_step(
    verbs: Verbs, owed: Attachment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In ms, in the order of the steps; without debug nothing is said."""
    verbs.journal.write_attachment(replace(owed, phase="attached"))
    config = json.dumps(owed.config).encode()
    delete = Request("DEL", "c1", "", "net1", "", str(tmp_path), config)
    with caplog.at_level("INFO"):
        verbs.handle(delete, None)
    assert " took " not in caplog.text
    with caplog.at_level("DEBUG"):
        verbs.handle(delete, None)
        verbs.journal.write_attachment(replace(owed, phase="attached"))
        verbs.handle(delete, None)
    first, second = (record.message for record in caplog.records if " took " in record.message)
    assert re.fullmatch(r"container c1 net1: DEL took [0-9.]+ ms: rest [0-9.]+", first)
    steps = ("configuration and locks", "journal", "start of IPAM", "VF back and compared", "wait for IPAM", "rest")
    assert re.findall("([a-zA-Z ]+) [0-9.]+(?:, |$)", second.partition(" ms: ")[2]) == list(steps)
