"""`cni` of the config file, up to the policy that the CNI plugin gets."""

from dataclasses import replace
from pathlib import Path

import pytest

from cni.policy import Policy
from sriovdp.agent import Agent, Roots
from sriovdp.config.file import parse
from sriovdp.config.values import Config
from sriovdp.errors import ConfigError
from sriovdp.policy import make_policy

EVERYTHING = """
cni:
  allow:
    trust: false
    spoofchkOff: false
    promisc: false
    allmulti: false
    mac: false
    drivers: [kernel]
    vlans: "300,100-199"
    sysctls: ["net.ipv4.conf.IFNAME.arp_*"]
  logFolders: []
  deviceInfoFolders: [/run/devinfo]
  stateFolders: [/srv/a, /srv/b]
"""
STRICT = Policy(
    log_folders=(), device_info_folders=(Path("/run/devinfo"),), state_folders=(Path("/srv/a"), Path("/srv/b")),
    trust=False, spoofchk_off=False, promisc=False, allmulti=False, mac=False, drivers=frozenset({"kernel"}),
    vlans=((100, 199), (300, 300)), sysctls=("net.ipv4.conf.IFNAME.arp_*",),
)  # fmt: skip


def test_defaults_are_those_of_the_plugin() -> None:
    """With and without an agent, and with a part of the keys."""
    assert make_policy(Config()) == make_policy(parse("cni: {allow: {}}", "x")) == Policy()
    assert make_policy(parse("cni: {allow: {trust: false}}", "x")) == replace(Policy(), trust=False)


def test_every_key_reaches_the_plugin(tmp_path: Path) -> None:
    """The agent hands it on."""
    config = parse(EVERYTHING, "x")
    assert make_policy(config) == STRICT
    assert Agent(config, Roots(state=tmp_path, run=tmp_path))._verbs.policy == STRICT


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("cni: {allow: {vlans: '4095'}}", "VLANs from 0 to 4094"),
        ("cni: {allow: {vlans: '9-5'}}", "VLANs from 0 to 4094"),
        ("cni: {allow: {vlans: '1, 5'}}", "without spaces"),
        ("cni: {allow: {drivers: [igb]}}", "igb"),
        ("cni: {allow: {trust: 'on'}}", "must be true or false"),
        ("cni: {allow: {sysctls: ['a b']}}", "net.ipv4.conf.IFNAME.arp_filter"),
        ("cni: {logFolders: [var/log]}", "absolute path"),
        ("cni: {logfolder: [/var/log]}", "logFolders"),
        ("cni: {allow: {spoofchk: false}}", "spoofchkOff"),
    ],
)
def test_faults_say_what_is_allowed(text: str, fault: str) -> None:
    """With the nearest key for a misspelt one."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "x")
    assert fault in str(caught.value)
