"""Delegation to IPAM plugins: the real host-local, and scripts for what it never does."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni.ipam.delegate import (
    Addresses,
    Deletion,
    IpamError,
    ask_status,
    check_addresses,
    collect_garbage,
    delete_addresses,
)
from cni.ipam.turns import MOST
from cni.protocol.spec import Result
from sriovdp.state.journal import Attachment, Original

PLUGINS = Path("/usr/lib/cni")


def attach(ipam: dict[str, Any], path: str = str(PLUGINS), container: str = "c1", version: str = "1.0.0") -> Attachment:
    """An attachment of a network with that IPAM configuration."""
    config = {"cniVersion": version, "name": "net-a", "type": "sriov", "ipam": ipam}
    original = Original("igbvf", None)
    return Attachment(
        container, "net1", "net-a", "0000:01:10.2", "kernel", original, "/run/netns/a", 0, 0, "b", config, path=path
    )


def ask(attachment: Attachment) -> Result:
    """Run the plugin's ADD."""
    with Addresses(attachment) as call:
        result = call.finish()
        assert result
        return result


@pytest.fixture
def script(tmp_path: Path) -> Any:
    """Write a plugin of a few shell lines and give an attachment that uses it."""

    def write(text: str) -> Attachment:
        plugin = tmp_path / "plugin"
        plugin.write_text(f"#!/bin/sh\n{text}\n")
        plugin.chmod(0o755)
        return attach({"type": "plugin"}, str(tmp_path))

    return write


def test_host_local_reserves_and_frees_an_address(tmp_path: Path) -> None:
    """The real plugin gives an address, reserves it for the container, and frees it on DEL."""
    ranges = [[{"subnet": "10.56.217.0/24", "rangeStart": "10.56.217.171", "rangeEnd": "10.56.217.171"}]]
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    attachment = attach(ipam)

    result = ask(attachment)
    assert [(ip.address, ip.gateway) for ip in result.ips] == [("10.56.217.171/24", "10.56.217.1")]
    with pytest.raises(IpamError, match="no IP addresses available"):
        ask(replace(attachment, container_id="c2"))

    delete_addresses(attachment)
    assert ask(replace(attachment, container_id="c2")).ips == result.ips


def test_a_plugin_that_knows_no_1_1_0_is_asked_in_1_0_0(script: Any) -> None:
    """Debian 12's host-local is of that kind: a network configuration of 1.1.0 works with it all the same."""
    old = script("""
        grep -q '"cniVersion": "1.1.0"' && { echo '{"code": 1, "msg": "incompatible CNI versions"}'; exit 1; }
        echo '{"cniVersion": "1.0.0", "ips": [{"address": "192.0.2.7/24"}]}'
    """)
    assert ask(replace(old, config={**old.config, "cniVersion": "1.1.0"})).ips[0].address == "192.0.2.7/24"


def test_a_plugin_that_refused_1_1_0_is_asked_in_1_0_0_until_it_is_replaced(script: Any, tmp_path: Path) -> None:
    """What a plugin refused once it refuses again; another file may know better."""
    text = f"""
        cat >{tmp_path}/stdin; cat {tmp_path}/stdin >>{tmp_path}/asked
        grep -q '"cniVersion": "1.1.0"' {tmp_path}/stdin && {{ echo '{{"code": 1, "msg": "no"}}'; exit 1; }}
        echo '{{"cniVersion": "1.0.0", "ips": [{{"address": "192.0.2.7/24"}}]}}'
    """
    old = script(text)
    old = replace(old, config={**old.config, "cniVersion": "1.1.0"})

    def count() -> int:
        (tmp_path / "asked").write_text("")
        ask(old)
        return (tmp_path / "asked").read_text().count("cniVersion")

    assert [count(), count()] == [2, 1]
    os.utime(tmp_path / "plugin", (1, 1))
    assert count() == 2


def test_deletion_of_a_plugin_that_may_need_the_interface_is_done_first(script: Any, tmp_path: Path) -> None:
    """Dhcp gives its lease back by the interface; host-local never looks, and goes beside."""
    attachment = script(f"sleep 0.3; echo $CNI_COMMAND >>{tmp_path}/calls")
    deletion = Deletion(attachment)
    assert (tmp_path / "calls").read_text() == "DEL\n"
    assert deletion.finish() is None

    (tmp_path / "plugin").rename(tmp_path / "host-local")
    deletion = Deletion(replace(attachment, config={**attachment.config, "ipam": {"type": "host-local"}}))
    assert (tmp_path / "calls").read_text() == "DEL\n"
    assert deletion.finish() is None
    assert (tmp_path / "calls").read_text() == "DEL\nDEL\n"


def test_deletion_that_fails_gives_its_error(script: Any) -> None:
    """The release goes on with the VF, and reports it afterwards."""
    assert str(Deletion(script("echo oops >&2; exit 3")).finish()).endswith("exit code 3: oops")
    assert "no IPAM plugin" in str(Deletion(attach({"type": "absent"})).finish())
    assert Deletion(attach({})).finish() is None


def test_host_local_answers_a_configuration_of_1_1_0(tmp_path: Path) -> None:
    """Whatever the version of the installed plugin, ADD and DEL go through."""
    ranges = [[{"subnet": "10.56.217.0/24"}]]
    attachment = attach({"type": "host-local", "dataDir": str(tmp_path), "ranges": ranges}, version="1.1.0")
    assert ask(attachment).ips
    delete_addresses(attachment)


def test_plugin_sees_the_whole_configuration_and_only_the_specified_environment(script: Any, tmp_path: Path) -> None:
    """The plugin gets our stdin and CNI variables, and none of the agent's environment."""
    answer = '{"ips": [{"address": "192.0.2.7/24"}]}'
    attachment = script(f"env > {tmp_path}/env; cat > {tmp_path}/stdin; echo '{answer}'")

    ask(attachment)

    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert {name for name in names if name.startswith("CNI_")} == {
        f"CNI_{name}" for name in ("COMMAND", "CONTAINERID", "NETNS", "IFNAME", "ARGS", "PATH", "SRIOVDP_DELEGATED")
    }
    assert not names & {"HOME", "USER"}
    assert json.loads((tmp_path / "stdin").read_text()) == attachment.config


def test_error_of_the_plugin_keeps_its_code(script: Any) -> None:
    """The caller sees the plugin's own code and words."""
    attachment = script("""echo '{"code": 11, "msg": "busy", "details": "later"}'; exit 1""")

    with pytest.raises(IpamError, match="busy later") as caught:
        ask(attachment)

    assert caught.value.code == 11


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("echo oops >&2; exit 3", "exit code 3: oops"),
        ("echo junk", "no valid result"),
        ("echo '[1]'", "no valid result"),
        ("echo '{}'", "gave no address"),
    ],
)
def test_nonsense_is_an_error(script: Any, text: str, told: str) -> None:
    """What is no result is not taken for one."""
    with pytest.raises(IpamError, match=told):
        ask(script(text))


def test_missing_plugin_names_the_search_path(tmp_path: Path) -> None:
    """The operator sees where it was looked for."""
    with pytest.raises(IpamError, match=r"no IPAM plugin 'absent'.*/usr/lib/cni"):
        ask(attach({"type": "absent"}))


def test_plugin_does_not_outlive_a_failed_attachment(script: Any, tmp_path: Path) -> None:
    """When the VF's side fails first, the plugin that runs beside it is stopped and reaped."""
    attachment = script(f"echo $$ > {tmp_path}/pid; exec sleep 60")

    (tmp_path / "plugin").rename(tmp_path / "host-local")  # one that runs beside the VF's side
    attachment = replace(attachment, config={**attachment.config, "ipam": {"type": "host-local"}})
    with pytest.raises(ValueError, match="VF failed"), Addresses(attachment):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            pass
        raise ValueError("VF failed")

    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_plugin_that_may_need_the_interface_is_started_when_it_is_up(script: Any, tmp_path: Path) -> None:
    """Dhcp asks by the interface; of a plugin that is not known, nothing else is assumed."""
    attachment = script(f"""touch {tmp_path}/ran; echo '{{"ips": [{{"address": "192.0.2.7/24"}}]}}'""")

    with Addresses(attachment) as call:
        time.sleep(0.1)
        assert not (tmp_path / "ran").exists()
        assert call.finish()


@pytest.mark.parametrize(
    ("answer", "fails"),
    [
        ('{"code": 7, "msg": "CNI CHECK method is not implemented"}', False),
        ('{"code": 1, "msg": "incompatible CNI versions"}', False),
        ('{"code": 4, "msg": "unknown CNI_COMMAND"}', False),
        ('{"code": 100, "msg": "Failed to find address added by container c1"}', True),
    ],
)
def test_check_of_a_plugin_without_one_finds_nothing(script: Any, answer: str, fails: bool) -> None:
    """Whereabouts has no CHECK and says so by failing; a real finding is an error."""
    attachment = script(f"echo '{answer}'; exit 1")
    if not fails:
        check_addresses(attachment)
        return
    with pytest.raises(IpamError, match="Failed to find address"):
        check_addresses(attachment)


def test_check_of_host_local_finds_a_lost_lease(tmp_path: Path) -> None:
    """The real plugin's CHECK."""
    attachment = attach({"type": "host-local", "dataDir": str(tmp_path), "ranges": [[{"subnet": "10.56.217.0/24"}]]})
    ask(attachment)
    check_addresses(attachment)
    delete_addresses(attachment)
    with pytest.raises(IpamError, match="host-local"):
        check_addresses(attachment)


def test_status_and_gc_of_a_plugin_from_before_them_are_nothing(tmp_path: Path) -> None:
    """Debian's host-local misses a container id before it sees that it does not know the verb."""
    ranges = [[{"subnet": "10.56.217.0/24"}]]
    attachment = attach(
        {"type": "host-local", "dataDir": str(tmp_path), "ranges": ranges}, container="", version="1.1.0"
    )
    ask_status(attachment)
    collect_garbage(attachment)
    with pytest.raises(IpamError, match="no IPAM plugin"):
        ask_status(replace(attachment, path="/nowhere"))


@pytest.mark.parametrize(
    "kind", ["../plugin", "/bin/sh", "sub/plugin", "..", ".", "a\0b", "sriov", ["plugin"], 7, {"a": 1}]
)
def test_a_path_and_our_own_type_are_never_executed(script: Any, tmp_path: Path, kind: Any) -> None:
    """Not for any verb and not from the journal: who writes a network chooses no programs of the node."""
    (tmp_path / "sub").mkdir()
    attachment = script(f"echo ran >>{tmp_path / 'calls'}")
    (tmp_path / "sub/plugin").symlink_to(tmp_path / "plugin")
    (tmp_path / "sriov").symlink_to(tmp_path / "plugin")
    for path in (tmp_path, tmp_path / "sub"):
        named = replace(attachment, path=str(path), config=attachment.config | {"ipam": {"type": kind}})
        for verb in (ask, delete_addresses, check_addresses, ask_status, collect_garbage):
            with pytest.raises(IpamError, match=r"ipam\.type") as refused:
                verb(named)
            assert refused.value.code == 7
        assert Deletion(named).finish() is None, "no ADD got an address from it"
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("ipam", ["../plugin", ["plugin"], 7])
def test_a_journal_entry_with_a_broken_ipam_owes_nothing(script: Any, ipam: Any) -> None:
    """No ADD took such a configuration."""
    attachment = script("exit 1")
    assert Deletion(replace(attachment, config=attachment.config | {"ipam": ipam})).finish() is None


def test_call_that_cannot_be_made_keeps_no_turn_and_no_file(script: Any) -> None:
    """As many as a plugin may have at once, and more: the next one runs all the same."""
    attachment = script("exit 0")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(MOST + 1):
        with pytest.raises(ValueError, match="null byte"):
            delete_addresses(replace(attachment, args="a\0b"))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    delete_addresses(attachment)
