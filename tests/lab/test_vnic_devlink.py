"""The software NIC's e-switch modes, representors and subfunctions; RDMA, vDPA and InfiniBand below its functions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sriovdp.config.file import parse
from sriovdp.errors import InUseError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.node.inventory import take_snapshot
from sriovdp.provision.apply import apply
from sriovdp.provision.reset import reset
from sriovdp.state.journal import Journal
from tests.fakes.runtime import Sandbox
from tests.lab.vnic_cards import Card, ip, load_beside, run, stations, wait_for

pytestmark = pytest.mark.lab(pfs=0, vnic="ice:4")

_Load = Callable[..., list[Card]]


def _devlink(words: str) -> str:
    """`devlink` with these words; "" or why the kernel refused."""
    done = run("devlink", *words.split())
    return "" if done.returncode == 0 else done.stderr


def _set_mode(card: Card, mode: str) -> str:
    return _devlink(f"dev eswitch set pci/{card.address} mode {mode}")


def _mode(card: Card) -> str:
    shown = json.loads(run("devlink", "-j", "dev", "eswitch", "show", f"pci/{card.address}").stdout)
    return str(shown["dev"][f"pci/{card.address}"]["mode"])


def _representors(card: Card) -> dict[str, str]:
    """Netdevs by their `phys_port_name`, as far as they are VFs' representors."""
    ports: dict[str, dict[str, Any]] = json.loads(run("devlink", "-j", "port").stdout)["port"]
    own = [port for name, port in ports.items() if name.startswith(f"pci/{card.address}/")]
    found = [port["netdev"] for port in own if port["flavour"] == "pcivf"]
    return {Path(f"/sys/class/net/{one}/phys_port_name").read_text().strip(): one for one in found}


def test_ice_changes_its_mode_without_vfs_only(vnic: _Load) -> None:
    """With its own words; trust is refused in switchdev mode."""
    (card,) = vnic("ice:2")
    card.write_numvfs(2)
    assert "only if there is no VFs created" in _set_mode(card, "switchdev")
    card.write_numvfs(0)
    assert _set_mode(card, "switchdev") == ""
    card.write_numvfs(2)
    assert set(_representors(card)) == {"pf0vf0", "pf0vf1"}
    assert "Operation not supported" in card.set_vf(0, "trust on")
    card.write_numvfs(0)
    assert _representors(card) == {}


def test_mlx5_changes_its_mode_with_vfs(vnic: _Load) -> None:
    """VFs stay; VLAN, spoofchk and trust are of the legacy mode."""
    (card,) = vnic("mlx5:2")
    card.write_numvfs(2)
    assert (_mode(card), _representors(card)) == ("legacy", {})
    assert _set_mode(card, "switchdev") == ""
    assert (_mode(card), set(_representors(card))) == ("switchdev", {"pf0vf0", "pf0vf1"})
    assert card.numvfs() == 2
    for setting in ("vlan 5", "spoofchk off", "trust on"):
        assert "Operation not supported" in card.set_vf(0, setting)
    switch = Path(f"/sys/class/net/{card.netdev}/phys_switch_id").read_text()
    assert Path(f"/sys/class/net/{_representors(card)['pf0vf0']}/phys_switch_id").read_text() == switch
    assert _set_mode(card, "legacy") == ""
    assert _representors(card) == {}
    assert card.set_vf(0, "vlan 5") == ""


def test_i40e_and_idpf_have_no_modes(vnic: _Load) -> None:
    """The first has a devlink instance, the second has none."""
    first, second = vnic("i40e:1,idpf:1")
    assert "Operation not supported" in _set_mode(first, "switchdev")
    assert "No such device" in _set_mode(second, "switchdev")


def test_devlink_info_names_the_ddp_package(vnic: _Load) -> None:
    """Of ice, as `fw.app.name`."""
    (card,) = vnic("ice:1")
    assert "ICE OS Default Package" in run("devlink", "dev", "info", f"pci/{card.address}").stdout


def test_a_vf_is_reached_by_its_representor_only(vnic: _Load) -> None:
    """And VFs reach each other once a bridge has their representors."""
    (card,) = vnic("mlx5:2")
    card.up()
    card.write_numvfs(2)
    assert _set_mode(card, "switchdev") == ""
    representors = _representors(card)
    with stations(card.vf_netdev(0), card.vf_netdev(1)) as (first, second):
        assert not first.reaches(second)
        ip("link add br0 type bridge forward_delay 0")
        for netdev in representors.values():
            ip(f"link set dev {netdev} master br0 up")
        ip("link set dev br0 up")
        wait_for(lambda: first.reaches(second))
        ip("link delete br0")


def test_subfunctions_come_and_go(vnic: _Load) -> None:
    """A port, an auxiliary device of the driver's name with its number, and a netdev."""
    (card,) = vnic("mlx5:2")
    assert _devlink(f"port add pci/{card.address} flavour pcisf pfnum 0 sfnum 88") == ""
    port = f"pci/{card.address}/{0x8000 + 88}"
    assert _devlink(f"port function set {port} hw_addr 02:00:00:00:00:58 state active") == ""
    (device,) = card.pf.glob("mlx5_core.sf.*")
    assert (device / "sfnum").read_text().strip() == "88"
    (netdev,) = (device / "net").iterdir()
    assert (netdev / "address").read_text().strip() == "02:00:00:00:00:58"
    assert _devlink(f"port function set {port} state inactive") == ""
    assert not device.exists()
    assert _devlink(f"port del {port}") == ""


def test_soft_roce_is_below_its_vf(vnic: _Load) -> None:
    """With verbs, and gone with the VF."""
    (card,) = vnic("mlx5:2")
    load_beside("vnic_rdma", "ib_core")
    run("modprobe", "-a", "ib_uverbs", "ib_umad", "rdma_rxe")
    card.write_numvfs(1)
    netdev, vf = card.vf_netdev(0), card.vf(0)
    done = run("rdma", "link", "add", "mlx5_2", "type", "rxe", "netdev", netdev)
    assert done.returncode == 0, done.stderr
    assert [one.name for one in (vf / "infiniband").iterdir()] == ["mlx5_2"]
    assert [one.name for one in (vf / "infiniband_verbs").iterdir()] == ["uverbs0"]
    card.write_numvfs(0)
    wait_for(lambda: "mlx5_2" not in run("rdma", "link").stdout)


def test_soft_roce_is_gone_when_its_netdev_moves(vnic: _Load) -> None:
    """So it cannot go into a pod with a VF, and is none that a NIC's own RDMA device can be tried with."""
    (card,) = vnic("mlx5:2")
    run("modprobe", "rdma_rxe")
    card.write_numvfs(1)
    netdev = card.vf_netdev(0)
    assert run("rdma", "link", "add", "soft0", "type", "rxe", "netdev", netdev).returncode == 0
    assert Path("/sys/class/infiniband/soft0").resolve().parent == Path("/sys/devices/virtual/infiniband")
    assert Path("/sys/class/infiniband/soft0/ports/1/gid_attrs/ndevs/0").read_text().strip() == netdev
    with stations(netdev):
        wait_for(lambda: "soft0" not in run("rdma", "link").stdout)


def test_rdma_mode_of_the_config(sandbox: Callable[[str], Sandbox], tmp_path: Path) -> None:
    """Set and given back as long as there are no pods; `rdma` is the oracle."""
    run("modprobe", "ib_core")
    for name in ("exclusive", "shared"):  # namespaces of other tests take a while to go
        assert wait_for(lambda name=name: run("rdma", "system", "set", "netns", name).returncode == 0)
    config, journal = parse("rdmaMode: exclusive", "test"), Journal(tmp_path / "provision")

    def mode() -> tuple[str, str | None]:
        return run("rdma", "system").stdout.split()[1], take_snapshot(Sysfs()).rdma_mode

    assert mode() == ("shared", "shared")
    assert [str(step) for step in apply(config, Sysfs(), journal).steps] == ["node: set RDMA mode exclusive"]
    assert mode() == ("exclusive", "exclusive")
    assert apply(config, Sysfs(), journal).steps == ()
    pod = sandbox("pod-a")
    assert reset(Sysfs(), journal).steps == ()
    assert mode() == ("exclusive", "exclusive")
    pod.remove()
    assert wait_for(lambda: len(reset(Sysfs(), journal).steps) == 1)
    assert mode() == ("shared", "shared")
    sandbox("pod-b")
    with pytest.raises(InUseError, match=r"Device or resource busy.*options ib_core netns_mode=0"):
        apply(config, Sysfs(), journal)
    assert mode() == ("shared", "shared")


def test_vdpa_devices_are_below_their_vf(vnic: _Load) -> None:
    """Made and removed through the VF's management device."""
    (card,) = vnic("mlx5:2")
    load_beside("vnic_vdpa", "vdpa")
    run("modprobe", "vhost_vdpa")
    card.write_numvfs(1)
    vf = card.vf(0)
    done = run("vdpa", "dev", "add", "name", "vdpa0", "mgmtdev", f"pci/{vf.name}", "mac", "02:00:00:00:00:09")
    assert done.returncode == 0, done.stderr
    assert (vf / "vdpa0/driver").resolve().name == "vhost_vdpa"
    assert Path("/dev/vhost-vdpa-0").exists()
    assert run("vdpa", "dev", "del", "vdpa0").returncode == 0
    assert run("vdpa", "dev", "add", "name", "vdpa1", "mgmtdev", f"pci/{vf.name}").returncode == 0
    card.write_numvfs(0)
    assert "vdpa1" not in run("vdpa", "dev").stdout


def test_infiniband_has_guids(vnic: _Load) -> None:
    """Link type, addresses of 20 bytes, GUIDs set through the PF and listed."""
    (card,) = vnic("mlx5:2/infiniband=1")
    card.write_numvfs(2)
    netdev = card.netdev
    assert netdev.startswith("ib")
    assert Path(f"/sys/class/net/{netdev}/type").read_text().strip() == "32"
    assert len(Path(f"/sys/class/net/{netdev}/address").read_text().strip().split(":")) == 20
    for kind in ("node_guid", "port_guid"):
        assert card.set_vf(1, f"{kind} 00:02:c9:03:00:00:00:07") == ""
    shown = run("ip", "link", "show", "dev", netdev).stdout.splitlines()
    assert any("vf 1" in line and line.count("00:02:c9:03:00:00:00:07") == 2 for line in shown)


def test_the_pf_is_removed_in_switchdev_mode(vnic: _Load) -> None:
    """With VFs, representors and a subfunction: all go, and the machine lives."""
    (card,) = vnic("mlx5:2")
    card.write_numvfs(2)
    _set_mode(card, "switchdev")
    _devlink(f"port add pci/{card.address} flavour pcisf pfnum 0 sfnum 1")
    _devlink(f"port function set pci/{card.address}/{0x8000 + 1} state active")
    card.pull()
    assert not list(Path("/sys/class/net").glob("eth*"))
    card.plug()
    assert _mode(card) == "legacy"
