"""What the agent knows of itself, as Prometheus metrics. Read when somebody asks, so that nothing is kept in step.

Nobody looks at the node for it: devices, attachments and pods are as of the agent's last look.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import get_args

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from cni import timing
from sriovdp.agent import Agent
from sriovdp.config.comparison import ComparedFile
from sriovdp.state.journal import Phase

_BOUNDS = [*(str(bound) for bound in timing.BOUNDS), "+Inf"]


class AgentCollector(Collector):
    """The metrics of one agent, which runs in other threads than the one that asks, and of its config file."""

    def __init__(self, agent: Agent, file: ComparedFile) -> None:
        self._agent = agent
        self._file = file
        self._version = version("sriovdp")

    def collect(self) -> Iterator[Metric]:
        """All of them. What is not known yet is left out."""
        yield InfoMetricFamily("sriovdp_build", "The program.", {"version": self._version})
        yield from self._collect_config()
        yield from self._collect_pools()
        yield from self._collect_work()
        yield _build_histogram(
            "sriovdp_cni_request_duration_seconds",
            "CNI requests in the agent by their outcome: ok, the error's CNI code, or other for an IPAM plugin's own.",
            ("verb", "outcome"),
            timing.requests,
        )
        yield _build_histogram(
            "sriovdp_cni_step_duration_seconds",
            "Steps of the ADD and DEL requests that succeeded; those of one request add up to its duration.",
            ("verb", "step"),
            timing.steps,
        )

    def _collect_config(self) -> Iterator[Metric]:
        state = self._file.compare(self._agent.config)
        yield GaugeMetricFamily(
            "sriovdp_config_file_valid", "1 if an agent could start with the config file as it is.", state.valid
        )
        yield GaugeMetricFamily(
            "sriovdp_config_current", "1 if the agent runs with what the config file says for this node.", state.current
        )

    def _collect_pools(self) -> Iterator[Metric]:
        offering = self._agent.offering
        offered = offering.devices()
        health = {
            (resource, word): sum(device.healthy is healthy for device in devices)
            for resource, devices in offered.items()
            for word, healthy in (("healthy", True), ("unhealthy", False))
        }
        yield _build_gauge("sriovdp_devices", "Devices offered to the kubelet.", ("resource", "health"), health.items())
        faults = Counter(
            (resource, fault.condition, "unhealthy" if fault.is_fatal else "warn")
            for resource, devices in offered.items()
            for device in devices
            for fault in device.faults
        )
        yield _build_gauge(
            "sriovdp_device_faults",
            "Devices that do not meet a condition of their pool's health, and whether they are unhealthy by it.",
            ("resource", "condition", "action"),
            faults.items(),
        )
        missing = offering.unregistered()
        registered = {(resource,): float(resource not in missing) for resource in offered}
        yield _build_gauge(
            "sriovdp_resource_registered",
            "1 if the kubelet has accepted the resource.",
            ("resource",),
            registered.items(),
        )
        pods = offering.pod_devices
        yield GaugeMetricFamily(
            "sriovdp_pod_resources_known", "1 if the kubelet reports which pod has which device.", pods.known
        )
        if pods.known:
            used = {(resource,): len(pods.held(resource)) for resource in offered}
            yield _build_gauge("sriovdp_devices_in_use", "Devices that pods have.", ("resource",), used.items())

    def _collect_work(self) -> Iterator[Metric]:
        attachments = self._agent.offering.attachments()
        if attachments is not None:
            phases = Counter(attachment.phase for attachment in attachments)
            yield _build_gauge(
                "sriovdp_attachments",
                "VFs attached to pods, by the phase in the journal.",
                ("phase",),
                [((phase,), phases[phase]) for phase in get_args(Phase)],
            )
        owed = Counter("VF" if found.device else "addresses" for found in self._agent.backlog.report())
        yield _build_gauge(
            "sriovdp_owed_releases",
            "Releases that have failed so far: VFs that no pod gets, and addresses that are not free.",
            ("part",),
            [((part,), owed[part]) for part in ("VF", "addresses")],
        )
        try:
            waiting = self._agent.spool.count()
        except OSError:  # the agent logs it when it replays
            return
        yield _build_gauge(
            "sriovdp_spooled_requests",
            "CNI requests kept on disk: to be replayed, or rejected and put aside for a person.",
            ("state",),
            [(("waiting",), waiting.spooled), (("rejected",), waiting.rejected)],
        )


def _build_gauge(
    name: str, text: str, labels: Iterable[str], values: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    for key, value in values:
        family.add_metric(key, value)
    return family


def _build_histogram(name: str, text: str, labels: Iterable[str], durations: timing.Durations) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=list(labels))
    for key, found in sorted(durations.read().items()):
        buckets = list(zip(_BOUNDS, map(float, accumulate(found.counts)), strict=True))
        family.add_metric(key, buckets, found.seconds)
    return family
