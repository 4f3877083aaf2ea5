"""The story: a node gets VFs, pods get them, packets flow where they should and nowhere else, and all is put back."""

import asyncio
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.stage import Stage
from tests.fakes.kubelet import Kubelet
from tests.fakes.runtime import CniFailureError, Runtime, Sandbox
from tests.lab.node import AgentProcess, LabNode

_LAUNCHER = Path("build/sriov").resolve()


@dataclass
class Pod:
    """A pod of the story: its sandbox, the VF it was given, and the network it is attached to."""

    sandbox: Sandbox
    device: str
    config: dict[str, Any]
    result: dict[str, Any]

    @property
    def address(self) -> str:
        """The pod's IP address."""
        return str(self.result["ips"][0]["address"]).split("/")[0]

    @property
    def mac(self) -> str:
        """The MAC of the pod's VF."""
        return str(self.result["interfaces"][0]["mac"])


class Story:
    """Shows the story on a stage, with the config file that an admin would write."""

    def __init__(self, stage: Stage, config: Path, root: Path) -> None:
        self._stage = stage
        self._node = LabNode(config)
        self._agent = AgentProcess(config, root)
        self._runtime = Runtime(_LAUNCHER, self._agent.socket)
        self._leases = root / "leases"
        self._pods: list[Pod] = []

    async def tell(self) -> None:
        """All scenes in order. Raises DemoFailedError at the first check that does not hold."""
        self._prepare_node()
        (self._agent.kubelet / "plugins_registry").mkdir(parents=True)
        async with Kubelet(self._agent.kubelet) as kubelet:
            try:
                await self._start_agent(kubelet)
                clean = self._node.look()
                await self._run_kernel_pods(kubelet)
                await self._run_dpdk_pod(kubelet)
                await self._remove_pods(kubelet, clean)
            finally:
                self._agent.stop()
                for pod in self._pods:
                    pod.sandbox.remove()

    def _prepare_node(self) -> None:
        stage, node = self._stage, self._node
        config = str(node.config)
        with stage.scene("1. The node before: one PF, no VFs"):
            stage.show("sriovdp discover", node.sriovdp("discover").stdout)
        with stage.scene("2. What would have to be done"):
            stage.show(f"sriovdp plan --config {config}", node.sriovdp("plan", "--config", config).stdout)
            stage.check("a plan changes nothing", (node.pf / "sriov_numvfs").read_text().strip() == "0")
        with stage.scene("3. Do it: create VFs, set admin MACs, bind drivers, read all back"):
            stage.show(f"sriovdp apply --config {config}", node.sriovdp("apply", "--config", config).stdout)
            stage.show("sriovdp discover", node.sriovdp("discover").stdout)
            drivers = set(node.look()["drivers"].values())
            stage.check("VFs are bound to igbvf, vfio-pci and igb_uio", drivers == {"igbvf", "vfio-pci", "igb_uio"})
            again = node.sriovdp("apply", "--config", config).stdout
            stage.check("a second apply finds nothing to do", "nothing to do" in again, again)

    async def _start_agent(self, kubelet: Kubelet) -> None:
        stage = self._stage
        with stage.scene("4. The agent offers the VFs to the kubelet"):
            await asyncio.to_thread(self._agent.start)
            kernel = await kubelet.wait_for("intel.com/sriov", count=4)
            dpdk = await kubelet.wait_for("intel.com/sriov_dpdk", count=2)
            for name, devices in (("intel.com/sriov", kernel), ("intel.com/sriov_dpdk", dpdk)):
                stage.tell(f"  {name}: {len(devices)}   {', '.join(sorted(devices))}")
            stage.check("the kubelet sees 4 kernel VFs and 2 DPDK VFs", (len(kernel), len(dpdk)) == (4, 2))

    async def _run_kernel_pods(self, kubelet: Kubelet) -> None:
        stage = self._stage
        with stage.scene("5. Two pods in VLAN 210"):
            red = await self._run_pod(kubelet, "red", "intel.com/sriov", vlan=210)
            blue = await self._run_pod(kubelet, "blue", "intel.com/sriov", vlan=210)
            stage.show(f"ip link show {self._node.pf_netdev}  # what the NIC enforces", self._show_pf())
            reply = red.sandbox.run("ping", "-c", "5", "-i", "0.4", "-W", "2", blue.address)
            stage.show(f"ping {blue.address}  # from pod red", reply.stdout)
            stage.check("red reaches blue", reply.returncode == 0, reply.stdout)
        with stage.scene("6. A pod in VLAN 211"):
            green = await self._run_pod(kubelet, "green", "intel.com/sriov", vlan=211)
            reply = green.sandbox.run("ping", "-c", "3", "-i", "0.4", "-W", "1", red.address)
            stage.show(f"ping {red.address}  # from pod green", reply.stdout)
            stage.check("green in VLAN 211 cannot reach red in VLAN 210", reply.returncode != 0, reply.stdout)

    async def _run_dpdk_pod(self, kubelet: Kubelet) -> None:
        stage, red = self._stage, self._pods[0]
        with stage.scene("7. A DPDK pod: the VF stays on vfio-pci, VLAN and MAC are set on the PF"):
            pod = await self._run_pod(kubelet, "dpdk", "intel.com/sriov_dpdk", vlan=210)
            before = _received(red)
            sent = await asyncio.to_thread(self._node.send_by_testpmd, pod.device, red.mac)
            arrived = _received(red) - before
            stage.tell(f"  dpdk-testpmd sent {sent} packets; pod red in the same VLAN received {arrived}")
            stage.check("testpmd sends on the VF, and packets arrive", sent > 0 and arrived > 0)

    async def _remove_pods(self, kubelet: Kubelet, clean: dict[str, Any]) -> None:
        stage = self._stage
        with stage.scene("8. The pods go, and the VFs are as they were"):
            for pod in self._pods:
                self._runtime.delete(pod.sandbox, pod.config)
                self._runtime.delete(pod.sandbox, pod.config)  # runtimes repeat DEL
                await kubelet.remove(pod.sandbox.name)
                pod.sandbox.remove()
            stage.show("sriovdp discover", self._node.sriovdp("discover").stdout)
            stage.check("every VF is back: driver, name, MAC, MTU, VLAN, trust", self._node.look() == clean)
            stage.check("the journal is empty", self._agent.attachments() == [])
            stage.tell(f"  resident memory of the agent: {self._agent.resident_kib() / 1024:.0f} MiB")

    async def _run_pod(self, kubelet: Kubelet, name: str, resource: str, *, vlan: int) -> Pod:
        """What kubelet and runtime do for a pod that requests the resource and names the network."""
        admitted = await kubelet.admit(name, {resource: 1})
        device = admitted.devices[resource][0]
        sandbox = Sandbox(name).create()
        config = self._network(device, vlan)
        try:
            result = await asyncio.to_thread(self._runtime.add, sandbox, config)
        except CniFailureError as error:
            self._stage.check(f"pod {name} gets its VF", holds=False, seen=str(error))
            raise
        pod = Pod(sandbox, device, config, result)
        self._pods.append(pod)
        nodes = f", device nodes {', '.join(node.host_path for node in admitted.nodes)}" if admitted.nodes else ""
        interface = result["interfaces"][0]
        self._stage.check(
            f"pod {name}: VF {device} as {interface['name']}, MAC {pod.mac}, VLAN {vlan}, address {pod.address}{nodes}",
            interface["pciID"] == device,
        )
        return pod

    def _network(self, device: str, vlan: int) -> dict[str, Any]:
        ranges = [[{"subnet": "10.56.217.0/24", "rangeStart": "10.56.217.171", "rangeEnd": "10.56.217.181"}]]
        return {
            "cniVersion": "1.1.0",
            "name": "demo",
            "type": "sriov",
            "deviceID": device,
            "vlan": vlan,
            "ipam": {"type": "host-local", "ranges": ranges, "dataDir": str(self._leases)},
        }

    def _show_pf(self) -> str:
        shown = subprocess.run(["ip", "link", "show", self._node.pf_netdev], capture_output=True, text=True, check=True)
        return "\n".join(line for line in shown.stdout.splitlines() if line.strip().startswith("vf "))


def _received(pod: Pod) -> int:
    shown = pod.sandbox.run("cat", "/proc/net/dev").stdout
    counters = next(line for line in shown.splitlines() if line.strip().startswith("net1:"))
    return int(counters.split(":")[1].split()[1])
