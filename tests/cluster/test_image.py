"""The image as the agent, with the mounts and capabilities of the DaemonSet and no more, in the real containerd."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cluster.conftest import BUILD
from tests.cluster.manifests import describe_container, find
from tests.lab.cri import Cri, Pod, api, wait_until
from tests.lab.images import import_archive
from tests.lab.installation import PLUGINS
from tests.lab.node import LabNode
from tests.scraping import scrape

pytestmark = pytest.mark.lab(containerd=True)

IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.56.217.0/24"}], [{"subnet": "fd00:217::/64"}]],
}
LOGS = Path("/var/log/pods")


@dataclass
class Deployment:
    """The DaemonSet on this node."""

    cri: Cri
    config: Path

    def start(self, name: str, args: tuple[str, ...] = (), *, without: str = "") -> Pod:
        """One of the DaemonSet's containers in a pod of its own; `args` in place of its own."""
        spec, container = _find_container("debian-cni", name)
        if name == "agent":  # with metrics too, which are a layer of their own
            container |= {key: _find_container("metrics", name)[1][key] for key in ("args", "env")}
        fields = describe_container(spec, container | ({"args": args} if args else {}), self.config, without=without)
        pod = self.cri.run_pod(f"{name}-{time.monotonic_ns()}", on_node=True, log_directory=str(LOGS))
        pod.start(log_path=f"{pod.name}.log", **fields)
        return pod

    @contextmanager
    def run_agent(self, *, without: str = "") -> Iterator[Pod]:
        """The agent, when it answers the probe for readiness; it is gone at the end."""
        pod = self.start("agent", without=without)
        try:
            wait_until(lambda: pod.try_run("sriovdp", "status")[0] == 0, "the agent is ready", seconds=300)
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.log(pod)}") from None
        try:
            yield pod
        finally:
            pod.remove()

    def finish(self, name: str, *args: str, without: str = "") -> tuple[int, str]:
        """Run a container to its end; exit code and output."""
        pod = self.start(name, args, without=without)
        wait_until(lambda: self._state(pod).state == api.ContainerState.Value("CONTAINER_EXITED"), f"{name} ends")
        code, output = self._state(pod).exit_code, self.log(pod)
        pod.remove()
        return code, output

    def log(self, pod: Pod) -> str:
        """What a container wrote, without the CRI's time stamps."""
        lines = (LOGS / f"{pod.name}.log").read_text().splitlines()
        return "\n".join(line.split(" ", 3)[-1] for line in lines)

    def _state(self, pod: Pod) -> Any:
        return self.cri.call("ContainerStatus", api.ContainerStatusRequest(container_id=pod.container)).status


def _find_container(layer: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod of a layer's DaemonSet, and one of its containers."""
    spec = find(BUILD / f"{layer}.yaml", "DaemonSet")["spec"]["template"]["spec"]
    [container] = [one for one in (*spec["initContainers"], *spec["containers"]) if one["name"] == name]
    return spec, container


@pytest.fixture(scope="module")
def deployment(cri: Cri, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A node without VFs, with a kubelet's folders, that has the image and has the plugin installed."""
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    import_archive(BUILD / "image.tar")
    for name in ("device-plugins", "plugins_registry", "pod-resources"):
        (Path("/var/lib/kubelet") / name).mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    config = tmp_path_factory.mktemp("config")
    (config / "config.yaml").write_text(find(BUILD / "provisioning.yaml", "ConfigMap")["data"]["config.yaml"])
    deployment = Deployment(cri, config)
    code, output = deployment.finish("install-cni")
    assert code == 0, output
    yield deployment
    LabNode(config / "config.yaml").remove_vfs()


@pytest.fixture(scope="module")
def agent_pod(deployment: Deployment) -> Iterator[Pod]:
    """The agent, when it answers the probe for readiness."""
    with deployment.run_agent() as pod:
        yield pod


def test_installer_puts_the_plugin_in_place(deployment: Deployment) -> None:
    """The init container, without any capability, leaves a launcher that answers VERSION on the node itself."""
    asked = subprocess.run([PLUGINS / "sriov"], env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=True)
    assert "1.1.0" in json.loads(asked.stdout)["supportedVersions"]


@pytest.mark.parametrize(("capability", "said"), [("NET_ADMIN", "not permitted"), ("SYS_MODULE", "modprobe")])
def test_provisioning_needs_capability(deployment: Deployment, capability: str, said: str) -> None:
    """On the bare node, settings of VFs need the one, and loading vfio-pci needs the other."""
    code, output = deployment.finish("agent", "apply", without=capability)
    assert code == 1, output
    assert said in output


def test_attaching_needs_sys_admin(deployment: Deployment, cri: Cri) -> None:
    """Without it the agent cannot enter the pod's network namespace, and says so to the kubelet."""
    use_vfs(cri, LabNode(deployment.config / "config.yaml"))
    refusal = pytest.raises(grpc.RpcError, match="EPERM")
    with deployment.run_agent(without="SYS_ADMIN"), refusal:
        cri.run_pod("refused")


def test_announcing_needs_net_raw(deployment: Deployment, cri: Cri) -> None:
    """Without it the pod gets its VF, and its addresses are not announced."""
    use_vfs(cri, LabNode(deployment.config / "config.yaml"))
    with deployment.run_agent(without="NET_RAW") as agent:
        pod = cri.run_pod("unheard")
        try:
            said = "announcing its addresses failed"
            wait_until(lambda: said in deployment.log(agent), lambda: f"the agent says so: {deployment.log(agent)}")
        finally:
            pod.remove()


def test_agent_makes_the_node_as_its_config_map_says(deployment: Deployment, agent_pod: Pod) -> None:
    """VFs exist and have their drivers, modules included, and the container's root is read-only all the while."""
    node = LabNode(deployment.config / "config.yaml")
    drivers = [(Path("/sys/bus/pci/devices") / node.vf(index) / "driver").resolve().name for index in range(7)]
    assert drivers == ["igbvf"] * 4 + ["vfio-pci"] * 2 + ["igb_uio"], deployment.log(agent_pod)
    assert agent_pod.try_run("sh", "-c", "echo > /x")[0] != 0
    assert " ERROR " not in deployment.log(agent_pod)


def test_pods_get_vfs_of_the_agent_in_the_image(deployment: Deployment, agent_pod: Pod, cri: Cri) -> None:
    """Two pods have a VF each and reach each other; afterwards VFs are back."""
    node = LabNode(deployment.config / "config.yaml")
    before = node.look()
    use_vfs(cri, node)
    first, second = (cri.run_pod(f"number{index}") for index in (0, 1))
    assert first.sandbox.ping(second.status.status.network.ip), deployment.log(agent_pod)
    first.remove()
    second.remove()
    assert node.look() == before
    assert agent_pod.run("sriovdp", "attachments").startswith("no VF is attached\n")


def test_metrics_count_each_add(deployment: Deployment, agent_pod: Pod, cri: Cri) -> None:
    """They are served at the node's address, by what the image has and without any right for it."""
    added = ("sriovdp_cni_request_duration_seconds_count", "ok", "ADD")
    before = scrape(9819).get(added, 0)
    use_vfs(cri, LabNode(deployment.config / "config.yaml"))
    cri.run_pod("counted").remove()
    after = scrape(9819)
    assert after[added] == before + 1, deployment.log(agent_pod)
    assert after["sriovdp_config_current",] == 1


def test_pods_reach_each_other_by_ipv6(deployment: Deployment, agent_pod: Pod, cri: Cri) -> None:
    """The same by IPv6, whose addresses the kernel checks for duplicates first."""
    use_vfs(cri, LabNode(deployment.config / "config.yaml"))
    first, second = (cri.run_pod(f"six{index}") for index in (0, 1))
    reached = first.sandbox.ping(second.status.status.network.additional_ips[0].ip)
    shown = second.sandbox.run("ip", "address", "show", "dev", "eth0").stdout
    first.remove()
    second.remove()
    assert reached, shown


def test_finding_who_has_a_vf_open_needs_two_capabilities(
    deployment: Deployment, agent_pod: Pod, tmp_path: Path
) -> None:
    """A user's program that has a VF's VFIO group open is named as what is in the way; without either of them not."""
    node = LabNode(deployment.config / "config.yaml")
    group = Path("/dev/vfio", (Path("/sys/bus/pci/devices") / node.vf(4) / "iommu_group").resolve().name)
    group.chmod(0o666)
    text = (deployment.config / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("driver: vfio-pci", "driver: kernel"))
    other = Deployment(deployment.cri, tmp_path)
    with (
        group.open("r+b", buffering=0) as opened,
        subprocess.Popen(["sleep", "600"], stdin=opened, user=1000) as holder,
    ):
        opened.close()  # it has a duplicate, and no other may
        try:
            missing = ("", "SYS_PTRACE", "DAC_READ_SEARCH")
            outputs = [other.finish("agent", "plan", without=capability)[1] for capability in missing]
        finally:
            holder.kill()
    assert [f"process {holder.pid} (sleep)" in output for output in outputs] == [True, False, False], outputs


def use_vfs(cri: Cri, node: LabNode) -> None:
    """Any free VF of the PF with a kernel driver is a pod's only network."""
    plugin = {"type": "sriov", "if0": node.pf_netdev, "vlan": 210, "ipam": IPAM}
    cri.use_network("both", {"cniVersion": "1.0.0", "plugins": [plugin]})
