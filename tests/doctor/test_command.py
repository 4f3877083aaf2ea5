"""The commands `doctor` and `report`: output, JSON, exit codes, and the page that describes them."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from cni.protocol.wire import Reply
from sriovdp.cli.doctor import make_peers
from sriovdp.cli.main import cli
from sriovdp.doctor.examined import Folders
from sriovdp.doctor.verdict import CHECKS
from sriovdp.doctor.view import View
from tests.doctor.check_table import PAGE, render
from tests.doctor.fake_node import PF, FakeNode


def run(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    """A well node."""
    return FakeNode(tmp_path / "node").write()


def test_the_page_has_the_checks_as_they_are() -> None:
    """`python -m tests.doctor.check_table` writes it."""
    assert PAGE.read_text() == render(PAGE.read_text())
    assert f"\n    {len(CHECKS)} checks: 1 fail" in PAGE.read_text()


def test_the_json_is_as_the_page_says(node: FakeNode) -> None:
    """The schema of docs/doctor.md holds for a well and for a broken node, and refuses something else."""
    schema = json.loads(re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)[0])
    jsonschema.Draft202012Validator.check_schema(schema)
    shown = run("doctor", "--root", node.root, "--json")
    assert shown.exit_code == 0
    well = json.loads(shown.stdout)
    jsonschema.validate(well, schema)
    (node.netdev("ens1f0") / "flags").write_text("0x1002\n")
    shown = run("doctor", "--root", node.root, "--json")
    broken = json.loads(shown.stdout)
    jsonschema.validate(broken, schema)
    assert (shown.exit_code, broken["status"], broken["counts"]["fail"]) == (1, "fail", 1)
    assert broken["checks"][0]["findings"][0]["fix"] == "`ip link set ens1f0 up`"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken | {"status": "bad"}, schema)


def test_the_text_has_faults_first(node: FakeNode) -> None:
    """Then warnings; what is well with --all only."""
    node.put_pf("sriov_drivers_autoprobe", "0")
    (node.netdev("ens1f0") / "flags").write_text("0x1002\n")
    lines = run("doctor", "--root", node.root).stdout.splitlines()
    assert lines[:3] == [
        "fail    pf-link",
        f"        ens1f0 ({PF}): the PF is down: its VFs have no link",
        "          fix: `ip link set ens1f0 up`",
    ]
    assert "warn    leftovers" in lines
    assert not [line for line in lines if line.startswith("ok")]
    shown = run("doctor", "--root", node.root, "--all").stdout
    assert "\nok      kernel\n        Linux 6.12.17-amd64\n" in shown


def test_one_check_alone(node: FakeNode) -> None:
    """By its name; another name is wrong usage."""
    assert run("doctor", "--root", node.root, "--check", "kernel").stdout == (
        "ok      kernel\n        Linux 6.12.17-amd64\n1 checks: 0 fail, 0 warn, 1 ok, 0 skipped\n"
    )
    assert run("doctor", "--root", node.root, "--check", "bogus").exit_code == 2


def test_a_config_that_is_named_comes_first(node: FakeNode, tmp_path: Path) -> None:
    """As an argument, and its faults with their lines."""
    (tmp_path / "c.yaml").write_text("physicalFunctions: 7\n")
    shown = run("doctor", tmp_path / "c.yaml", "--root", node.root)
    assert shown.exit_code == 1
    assert shown.stdout.splitlines()[0] == "fail    config"
    assert f"{tmp_path}/c.yaml: line 1: physicalFunctions" in shown.stdout
    assert run("doctor", tmp_path / "none.yaml", "--root", node.root).stdout.startswith("fail    config\n")


@pytest.mark.parametrize("command", ["doctor", "report"])
def test_a_root_that_is_none_is_an_error(node: FakeNode, tmp_path: Path, command: str) -> None:
    """Broken answers, and a loop of links where the config is: one sentence, no traceback."""
    target = [tmp_path / "r.tar.gz"] if command == "report" else []
    node.put("doctor/unseen.json", "{")
    shown = run(command, *target, "--root", node.root)
    assert (shown.exit_code, shown.stderr.count("\n")) == (1, 1)
    assert shown.stderr.startswith(
        f"sriovdp: error: examining {node.root} failed: /doctor/unseen.json is not as written"
    )
    node.put("doctor/unseen.json", "[]")
    (node.root / "etc").rename(node.root / "elsewhere")
    (node.root / "etc").symlink_to("etc")
    assert "too many links" in run(command, *target, "--root", node.root).stderr


def test_nothing_is_changed(node: FakeNode) -> None:
    """No file of the node differs afterwards, and none is new."""

    def look() -> dict[Path, object]:
        return {path: path.read_bytes() if path.is_file() else path.lstat().st_mode for path in node.root.rglob("*")}

    before = look()
    run("doctor", "--root", node.root, "--all")
    assert look() == before


def test_this_machine_can_be_examined() -> None:
    """The live node, whatever it is: no check fails by itself."""
    shown = run("doctor", "--all")
    assert shown.exit_code in {0, 1}
    assert not re.search(r"the check [\w-]+ (failed|cannot)", shown.stdout), shown.stdout


def test_the_agents_answer_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it owes is a line; the RDMA mode, which is no fault, is none. An agent that is not ready says why."""
    report = {"owed": [{"name": "eth0 VF 1", "device": "", "reason": "busy", "attempts": 2}], "rdma_mode": "shared"}
    replies = {"STATUS": Reply(0, b""), "REPORT": Reply(0, json.dumps(report).encode())}
    monkeypatch.setattr("sriovdp.cli.doctor.ask", lambda _, command="STATUS": replies[command])
    peers = make_peers(View(tmp_path), Folders())
    assert peers.agent() == ["ok", "eth0 VF 1: busy (attempts: 2)"]
    replies["STATUS"] = Reply(1, b'{"msg": "not ready", "details": "the disk is full"}')
    assert next(iter(peers.agent())) == "not ready the disk is full"
