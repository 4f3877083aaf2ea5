"""What users apply to a cluster: held against Kubernetes' own schemas, and against what the program needs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cni.policy import Policy
from cni.protocol.netconf import parse_netconf
from sriovdp.agent import Roots
from sriovdp.cli.agent import command as agent_command
from sriovdp.cli.main import _SUMMARIES
from sriovdp.config.file import load

DEPLOY = Path(__file__).parents[2] / "config/deploy"
VERSIONS = ("1.28", "1.37")  # the oldest that the agent is for, and the newest whose schemas are here

# the CustomResourceDefinition of Multus, deployments/multus-daemonset-thick.yml
NETWORK = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "k8s.cni.cncf.io/v1"},
        "kind": True,
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {"type": "object", "properties": {"config": {"type": "string"}}, "additionalProperties": False},
    },
    "additionalProperties": False,
}


def list_documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """All objects of all manifests, each with its place."""
    for path in sorted(DEPLOY.rglob("*.yaml")):
        if path.name not in {"kustomization.yaml", "config.yaml"}:
            for document in yaml.safe_load_all(path.read_text()):
                yield f"{path.relative_to(DEPLOY)}:{document['kind']}/{document['metadata']['name']}", document


OBJECTS = dict(list_documents())
NETWORKS = {place: one for place, one in OBJECTS.items() if one["kind"] == "NetworkAttachmentDefinition"}
DAEMON_SET = OBJECTS["base/daemonset.yaml:DaemonSet/sriovdp"]
SPEC = DAEMON_SET["spec"]["template"]["spec"]
[AGENT] = SPEC["containers"]
[INSTALLER] = SPEC["initContainers"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("place", sorted(OBJECTS.keys() - NETWORKS.keys()))
def test_object_is_valid_for_kubernetes(place: str, version: str) -> None:
    """Each object fits the OpenAPI schema of its kind, in which no unknown field is allowed."""
    kubernetes_validate.validate(OBJECTS[place], version, strict=True)


def test_schemas_refuse_a_misspelt_field() -> None:
    """The check above can fail: a field that Kubernetes does not have is refused."""
    broken = json.loads(json.dumps(DAEMON_SET))
    broken["spec"]["template"]["spec"]["hostNetworks"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="hostNetworks"):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("place", sorted(NETWORKS))
def test_network_is_one_that_the_plugin_takes(place: str) -> None:
    """Each network definition has the shape of Multus' CRD, and our plugin finds no fault in what it configures."""
    jsonschema.validate(NETWORKS[place], NETWORK)
    config = json.loads(NETWORKS[place]["spec"]["config"])
    assert config["name"] == NETWORKS[place]["metadata"]["name"]
    given = json.dumps(config | {"deviceID": "0000:02:10.0"}).encode()
    assert parse_netconf(given, command="ADD").name == config["name"]


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("config.yaml")), ids=lambda path: path.parent.name)
def test_config_is_valid(path: Path) -> None:
    """Each config for the agent has pools and no fault."""
    assert load(path).pools


def test_examples_ask_for_what_configs_offer() -> None:
    """Each resource that an example asks for or a network names is a pool of the config with provisioning."""
    offered = {pool.resource for pool in load(DEPLOY / "overlays/provisioning/config.yaml").pools}
    asked = {one["metadata"]["annotations"]["k8s.v1.cni.cncf.io/resourceName"] for one in NETWORKS.values()}
    for pod in (one for one in OBJECTS.values() if one["kind"] == "Pod"):
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        asked |= {name for name in limits if "/" in name}
    assert asked <= offered


def test_kustomizations_name_files_that_are_there() -> None:
    """Resources and generators of base and overlays point at files and folders that exist."""
    for path in DEPLOY.rglob("kustomization.yaml"):
        document = yaml.safe_load(path.read_text())
        files = [name for generator in document.get("configMapGenerator", ()) for name in generator["files"]]
        for name in (*document["resources"], *files):
            assert (path.parent / name).exists(), f"{path}: {name}"


@pytest.mark.parametrize("version", VERSIONS)
def test_metrics_are_served_at_the_port_that_is_named(version: str) -> None:
    """The overlay's patch makes a valid DaemonSet; its option is one that the agent takes, with that very port."""
    overlay = yaml.safe_load((DEPLOY / "overlays/metrics/kustomization.yaml").read_text())
    [patch] = overlay["patches"]
    [added] = yaml.safe_load(patch["patch"])["spec"]["template"]["spec"]["containers"]
    patched = json.loads(json.dumps(DAEMON_SET))
    [agent] = patched["spec"]["template"]["spec"]["containers"]
    assert agent["name"] == added["name"]
    assert agent["args"] == added["args"][:1]
    agent |= {**added, "env": agent["env"] + added["env"]}
    kubernetes_validate.validate(patched, version, strict=True)
    [option] = added["args"][1:]
    [variable] = added["env"]
    told = option.replace(f"$({variable['name']})", "192.0.2.1")
    endpoint = agent_command.make_context("agent", [told]).params["endpoint"]
    assert endpoint == ("192.0.2.1", added["ports"][0]["containerPort"])


def test_agent_has_a_mount_for_each_of_its_folders() -> None:
    """Whatever the agent reads and writes of the node is mounted into its container, at the place where it looks."""
    mounted = [Path(mount["mountPath"]) for mount in AGENT["volumeMounts"]]
    roots = Roots()
    needed = [roots.sysfs, roots.dev, roots.run, roots.state, Path("/etc/sriovdp"), Path("/lib/modules")]
    needed += [roots.kubelet / name for name in ("device-plugins", "plugins_registry", "pod-resources")]
    needed += [Path("/run/netns"), Path("/var/lib/cni")]
    needed += [*Policy().log_folders, *Policy().state_folders]
    needed += [Path(str(folder).removeprefix("/var")) for folder in (roots.device_info, roots.cdi)]
    missing = [path for path in needed if not any(path.is_relative_to(place) for place in mounted)]
    assert missing == []


def test_mounts_and_volumes_belong_together() -> None:
    """Each mount has its volume, each volume is mounted, and a folder has the same path inside and outside."""
    volumes = {volume["name"]: volume for volume in SPEC["volumes"]}
    mounts = [*AGENT["volumeMounts"], *INSTALLER["volumeMounts"]]
    assert {mount["name"] for mount in mounts} == volumes.keys()
    for mount in mounts:
        if "hostPath" in volumes[mount["name"]]:
            # no volume may lie in a container's /proc, so that one is below another folder
            assert volumes[mount["name"]]["hostPath"]["path"] == mount["mountPath"].removeprefix("/node")


def test_containers_have_no_more_than_they_say() -> None:
    """Neither container is privileged; each drops all capabilities, has a read-only root and sees no API token."""
    for container in (AGENT, INSTALLER):
        context = container["securityContext"]
        assert "privileged" not in context
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"]["drop"] == ["ALL"]
    assert not SPEC["automountServiceAccountToken"]
    assert "add" not in INSTALLER["securityContext"]["capabilities"]


def test_containers_and_probes_call_commands_that_exist() -> None:
    """What is started is a command of the program."""
    probes = [AGENT[name]["exec"]["command"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    called = [AGENT["args"][0], INSTALLER["args"][0], *(command[1] for command in probes)]
    assert set(called) <= _SUMMARIES.keys()
    assert {command[0] for command in probes} == {"sriovdp"}
