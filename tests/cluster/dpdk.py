"""The pods of the DPDK example, with this machine's own testpmd in them."""

import re

from tests.cluster.api import Api
from tests.cluster.pods import read_pod, read_status, wait_for_phase
from tests.lab.cri import wait_until
from tests.lab.images import import_links
from tests.lab.node import LabNode


def run_testpmd(api: Api, node: LabNode, name: str, driver: str) -> None:
    """A pod of the example drives its VF, which has this driver, with the MAC that the PF has for it, and sends."""
    import_links("docker.io/library/dpdk:local")
    pod = read_pod("dpdk.yaml", name)
    # that image would have DPDK in it; ours is of links, and has this machine's own
    pod["spec"]["volumes"] += [{"name": place, "hostPath": {"path": f"/{place}"}} for place in ("usr", "etc")]
    [container] = pod["spec"]["containers"]
    container["volumeMounts"] += [
        {"name": place, "mountPath": f"/{place}", "readOnly": True} for place in ("usr", "etc")
    ]
    container["args"] = [container["args"][0] + " --forward-mode=txonly"]
    api.create(pod)
    running = wait_for_phase(api, name, "Running", "Failed")
    wait_until(lambda: _count_sent(api.log(name)) > 0, lambda: f"testpmd sends: {api.log(name)}", 60)
    device = read_status(running)["net1"]["device-info"]["pci"]["pci-address"]
    index = next(index for index in range(7) if node.vf(index) == device)
    assert node.look()["drivers"][f"virtfn{index}"] == driver
    assert f"Port 0: {node.look_vf(index)['address'].upper()}" in api.log(name)
    assert node.vlan(index) == 210


def _count_sent(log: str) -> int:
    return max((int(count) for count in re.findall(r"TX-packets: (\d+)", log)), default=0)
