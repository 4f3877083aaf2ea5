"""The report: what is in it, that nobody is named in it, and that a doctor finds the same in it."""

import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from sriovdp.cli.main import cli
from sriovdp.doctor import bundle as bundle_module
from sriovdp.doctor.disguise import Disguise
from sriovdp.node.recording import Pseudonyms
from tests.doctor.broken_nodes import BROKEN
from tests.doctor.fake_node import BOOT, PF, VFS, FakeNode, diagnose

_MAC = "3c:ec:ef:12:34:56"
_IDENTITIES = (
    *("node7", "example.com", "web-1", "web-2", "shop", "customer-net", "ab" * 32, "ab" * 6, BOOT, "hunter2", "s3cret"),
    *("10.20.30.40", "fd00:1::7", _MAC, _MAC.upper(), "3cecef123456", "jane", "000102030405", "eyJhbGciOi", "Zz9-77"),
)
LOG = f"""2026-11-26 node7 INFO ens1f0 VF 0 ({VFS[0]}): attached to pod shop/web-1 (container {"ab" * 6}) net1
2026-11-26 node7 WARNING {_MAC.upper()} at 10.20.30.40 and fd00:1::7, 00:00:00:00:00:00, 127.0.0.1, Linux 6.12.17
Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.x password=s3cret jane@example.com /home/jane/x serial: Zz9-77
"""


def run(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def fill(node: FakeNode) -> FakeNode:
    """Identities wherever a node has them."""
    node.config["physicalFunctions"][0]["vfs"][0]["mac"] = [_MAC, "3c:ec:ef:12:34:57"]
    node.config["physicalFunctions"][0]["nodes"] = {"names": ["node7"]}
    node.config["resourceList"][0]["env"] = {"LICENCE": "s3cret"}
    node.netlink["vf_settings"][PF]["0"]["mac"] = _MAC
    node.write()
    (node.netdev("ens1f0v0") / "address").write_text(f"{_MAC}\n")
    node.attach(config={"type": "sriov", "token": "s3cret"}, result={"ips": [{"address": "10.20.30.40/24"}]})
    node.answer("node", "node7")
    node.answer("pod-resources", "ok", f"{VFS[0]} shop/web-2")
    node.answer("kernel-log", f"i40e {PF}: MDD event, MAC {_MAC}")
    node.put("log", LOG)
    return node


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    """A node with identities."""
    return fill(FakeNode(tmp_path / "node"))


def report(node: FakeNode, target: Path) -> Path:
    """Make a report, unpack it, and give its folder."""
    shown = run("report", target, "--root", node.root, "--log", node.root / "log")
    assert shown.exit_code == 0, shown.output
    folder = target.parent / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "-xzf", target, "-C", folder], check=True)
    return next(folder.iterdir())


def read_all(folder: Path) -> dict[str, str]:
    """All names, contents and links of a report."""
    found = {}
    for path in folder.rglob("*"):
        text = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path.relative_to(folder))] = text
    return found


def test_nobody_is_named(node: FakeNode, tmp_path: Path) -> None:
    """No identity is in any name, content or link."""
    files = read_all(report(node, tmp_path / "r.tar.gz"))
    named = [(path, word) for path, text in files.items() for word in _IDENTITIES if word in path or word in text]
    assert named == []
    assert set(files) > {
        "README.txt",
        "doctor.txt",
        "doctor.json",
        "status.txt",
        "log.txt",
        "node/etc/sriovdp/config.yaml",
    }


def test_the_same_has_the_same_name_everywhere(node: FakeNode, tmp_path: Path) -> None:
    """A MAC in config, settings, netdev, log and kernel log; a pod in journal, log and findings; the boot."""
    folder = report(node, tmp_path / "r.tar.gz")
    config = yaml.safe_load((folder / "node/etc/sriovdp/config.yaml").read_text())
    mac = config["physicalFunctions"][0]["vfs"][0]["mac"][0]
    facts = json.loads((folder / "node/sys/netlink.json").read_text())
    log = (folder / "log.txt").read_text()
    assert facts["vf_settings"][PF]["0"]["mac"] == mac
    assert (folder / f"node/sys/bus/pci/devices/{VFS[0]}/net/ens1f0v0/address").read_text().strip() == mac
    assert f"WARNING {mac} at 198.18.0.1 and 2001:db8::" in log
    assert mac in (folder / "node/doctor/kernel-log.json").read_text()
    assert "00:00:00:00:00:00, 127.0.0.1, Linux 6.12.17" in log
    (entry,) = (json.loads(path.read_text()) for path in (folder / "node/var/lib/sriovdp/journal").iterdir())
    pod = "namespace-1/pod-1"
    assert entry["args"] == "K8S_POD_NAMESPACE=namespace-1;K8S_POD_NAME=pod-1"
    assert f"pod {pod} (container {entry['container_id'][:12]})" in log
    assert f"pod {pod} (net1) has it by the journal" in (folder / "doctor.txt").read_text()
    assert entry["boot_id"] == (folder / "node/proc/sys/kernel/random/boot_id").read_text().strip()
    assert config["resourceList"][0]["env"] == {"LICENCE": "HIDDEN"}
    assert "config" not in entry
    assert "result" not in entry


@pytest.mark.parametrize("case", sorted(BROKEN)[::4])
def test_a_doctor_finds_the_same_in_a_report(tmp_path: Path, case: str) -> None:
    """Each fault of a broken node is found in its report as on the node."""
    node = FakeNode(tmp_path / "node").write()
    node.put("log", "")
    node.attach()
    BROKEN[case][0](node)
    here = [(v.check.name, v.status, len(v.findings)) for v in diagnose(node) if v.status in {"fail", "warn"}]
    inside = FakeNode(report(node, tmp_path / "r.tar.gz") / "node")
    assert [(v.check.name, v.status, len(v.findings)) for v in diagnose(inside) if v.status in {"fail", "warn"}] == here


def test_a_folder_that_is_not_there_is_not_in_a_report(tmp_path: Path) -> None:
    """Of a node without a kubelet and networks: its report has none either, and skips the same checks."""
    node = FakeNode(tmp_path / "node").write()
    node.put("log", "")
    for folder in ("var/lib/kubelet", "etc/cni", "opt/cni"):
        shutil.rmtree(node.root / folder)
    here = [(v.check.name, v.status) for v in diagnose(node)]
    inside = FakeNode(report(node, tmp_path / "r.tar.gz") / "node")
    assert [(v.check.name, v.status) for v in diagnose(inside)] == here
    assert ("cni-networks", "skipped") in here


def test_a_report_of_a_report_is_the_same(node: FakeNode, tmp_path: Path) -> None:
    """What is reduced and disguised stays so."""
    first = report(node, tmp_path / "r.tar.gz")
    again = FakeNode(first / "node")
    again.put("log", (first / "log.txt").read_text())
    (tmp_path / "two").mkdir()
    second = report(again, tmp_path / "two" / "r.tar.gz")
    found = [
        [(one["name"], one["status"]) for one in json.loads((f / "doctor.json").read_text())["checks"]]
        for f in (first, second)
    ]
    assert found[0] == found[1], (second / "doctor.txt").read_text()


def test_only_the_owner_can_read_it_and_nothing_is_overwritten(node: FakeNode, tmp_path: Path) -> None:
    """A new file with mode 0600; neither a file nor a link that is there is written through."""
    target = tmp_path / "r.tar.gz"
    before = os.umask(0)
    try:
        report(node, target)
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    kept = target.read_bytes()
    link = tmp_path / "link.tar.gz"
    link.symlink_to(tmp_path / "elsewhere")
    for taken in (target, link):
        shown = run("report", taken, "--root", node.root, "--log", node.root / "log")
        assert (shown.exit_code, "File exists" in shown.stderr) == (1, True)
    assert target.read_bytes() == kept
    assert not (tmp_path / "elsewhere").exists()


def test_no_link_leads_out(node: FakeNode, tmp_path: Path) -> None:
    """Neither in what is read, nor in the archive; and nobody owns its files."""
    journal = node.root / "var/lib/sriovdp/journal"
    (journal / f"attachment-{'cd' * 32}-net1.json").symlink_to("/etc/passwd")
    (node.pci(PF) / "upper_out").symlink_to("/etc/passwd")
    target = tmp_path / "r.tar.gz"
    folder = report(node, target)
    assert "root:" not in str(read_all(folder))
    with tarfile.open(target) as archive:
        for entry in archive:
            assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", "")
            assert entry.isreg() or entry.isdir() or entry.issym()
            inside = os.path.normpath(Path(entry.name).parent / entry.linkname)
            assert not entry.issym() or (inside.startswith("r/") and not entry.linkname.startswith("/"))
            assert ".." not in Path(entry.name).parts


def test_a_log_is_cut_and_no_link(node: FakeNode, tmp_path: Path) -> None:
    """Its last MiB; a link and a FIFO are refused or empty, nothing is waited for."""
    node.put("log", "first\n" + "x" * (2 << 20) + "\nlast")
    log = (report(node, tmp_path / "r.tar.gz") / "log.txt").read_text()
    assert len(log) <= 1 << 20
    assert log.endswith("last\n")
    (tmp_path / "link").symlink_to(node.root / "log")
    shown = run("report", tmp_path / "s.tar.gz", "--root", node.root, "--log", tmp_path / "link")
    assert (shown.exit_code, (tmp_path / "s.tar.gz").exists()) == (1, False)
    os.mkfifo(tmp_path / "fifo")
    assert run("report", tmp_path / "t.tar.gz", "--root", node.root, "--log", tmp_path / "fifo").exit_code == 0


def test_a_report_without_anything(tmp_path: Path) -> None:
    """A folder with an empty sysfs: the report says what is not in it."""
    (tmp_path / "node/sys").mkdir(parents=True)
    (tmp_path / "node/log").write_text("")
    shown = run("report", tmp_path / "r.tar.gz", "--root", tmp_path / "node", "--log", tmp_path / "node/log")
    assert shown.exit_code == 0
    with tarfile.open(tmp_path / "r.tar.gz") as archive:
        page = archive.extractfile("r/README.txt")
        assert page is not None
        assert "Not in it: the config: there is none" in page.read().decode()


def test_a_full_disk_leaves_no_half_report(node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is removed, and the error says why."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", fail)
    shown = run("report", tmp_path / "r.tar.gz", "--root", node.root, "--log", node.root / "log")
    assert (shown.exit_code, "No space left on device" in shown.stderr) == (1, True)
    assert not (tmp_path / "r.tar.gz").exists()


def test_its_size_is_bounded(node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the journal beyond a number are left out, and a report that is too large is none."""
    for number in range(8):
        node.put(f"var/lib/sriovdp/journal/attachment-{f'{number:064x}'[::-1]}-net1.json", '{"version": 1}')
    monkeypatch.setattr(bundle_module, "_MOST_ENTRIES", 5)
    folder = report(node, tmp_path / "r.tar.gz")
    assert len(list((folder / "node/var/lib/sriovdp/journal").iterdir())) == 5
    assert "Not in it: 4 files of the journal" in (folder / "README.txt").read_text()
    monkeypatch.setattr(bundle_module, "_MOST", 1000)
    shown = run("report", tmp_path / "s.tar.gz", "--root", node.root, "--log", node.root / "log")
    assert (shown.exit_code, (tmp_path / "s.tar.gz").exists()) == (1, False)


def _hide(text: str, **known: list[str]) -> str:
    return Disguise(known, Pseudonyms()).hide(text)


@pytest.mark.parametrize(
    "text",
    [
        "ens1f0 VF 3 (0000:3b:02.3): bound to vfio-pci",
        "Linux 6.12.17-amd64, firmware 9.40 0x8000ed9c 1.3429.0",
        "2026-11-26T08:10:11Z 08:10:11 [::1]:9808 00:00:00:00:00:00",
        "intel.com/net default kube-system -vf0-1",
    ],
)
def test_what_names_nobody_stays(text: str) -> None:
    """PCI addresses, versions, times, loopback, resources."""
    assert _hide(text, namespace=["default", "kube-system"], pod=["vf", "0"]) == text


@given(st.text(max_size=200))
def test_any_text_can_be_disguised(text: str) -> None:
    """No text is too odd, and a second time changes no MAC, no name."""
    _hide(text, pod=["web-1", text[:20] or "x"], namespace=["a(b"])


@given(st.lists(st.from_regex(r"[a-z][a-z0-9-]{2,20}[a-z]", fullmatch=True), min_size=1, max_size=6, unique=True))
def test_no_known_name_stays(names: list[str]) -> None:
    """Longer names first: `web-10` is not `web-1` and a zero."""
    text = " ".join(f"pod shop/{name} x{name}y, {name}." for name in names)
    hidden = _hide(text, pod=names, namespace=["shop"], pair=[f"shop/{name}" for name in names])
    words: Any = io.StringIO(hidden).read().replace(",", " ").replace(".", " ").split()
    assert not {f"shop/{name}" for name in names} & set(words)
