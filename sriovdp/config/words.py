"""What may stand for one value of the config file: its check, its type, and its part of the JSON schema.

A check raises ValueError with a sentence. Numbers count as text where text is wanted: `vendors: [8086]` is what people
write in YAML.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import PlainValidator, WithJsonSchema

from sriovdp.config import checks, macs, values
from sriovdp.config.ranges import MAX_VFS, VfIndices
from sriovdp.model import PciAddress

T = TypeVar("T")

_MIN_MTU, _MAX_MTU = 68, 65535  # ETH_MIN_MTU, ETH_MAX_MTU of linux/if_ether.h
_MAX_VLAN = 4094
_MAX_RATE = 2**32 - 1  # struct ifla_vf_rate of linux/if_link.h
_MAX_NUMA_NODE = 1023  # NODES_SHIFT of the kernel is 10 at most
_WORD = WithJsonSchema({"type": ["string", "integer"]})


def _word(check: Callable[[str], T]) -> PlainValidator:
    """A value that is one word in the file; the check gives its meaning."""

    def read(value: Any) -> T:
        if type(value) is int:
            value = str(value)
        if not isinstance(value, str):
            raise ValueError("one word is wanted here")  # noqa: TRY004 (pydantic collects ValueError)
        return check(value)

    return PlainValidator(read)


def _pattern(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


def _numeric_pattern(pattern: str) -> WithJsonSchema:
    """For words that YAML may take for a number."""
    return WithJsonSchema({"type": ["string", "integer"], "pattern": pattern})


def _one_of(*words: str) -> WithJsonSchema:
    return WithJsonSchema({"enum": list(words)})


def _number(low: int, high: int, what: str) -> PlainValidator:
    return PlainValidator(checks.check_between(low, high, what))


_ID = _numeric_pattern("^[0-9a-f]{4}$")
_ADDRESS_PATTERN = r"([0-9A-Fa-f]{4,}:)?[0-9A-Fa-f]{2}:[01][0-9A-Fa-f]\.[0-7]"
_RANGE_PATTERN = r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*"
_PATH = _pattern("^/")

Name = Annotated[str, _word(checks.check_name), _numeric_pattern(r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")]
Prefix = Annotated[str, _word(checks.check_prefix), _numeric_pattern(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
DeviceType = Annotated[
    values.DeviceType, _word(checks.check_device_type), _one_of("netDevice", "accelerator", "auxNetDevice")
]
PciId = Annotated[str, _word(checks.check_pci_id), _ID]
Address = Annotated[PciAddress, _word(checks.check_address), _pattern(f"^{_ADDRESS_PATTERN}$")]
RootDevice = Annotated[
    values.RootDevice, _word(checks.check_root_device), _pattern(f"^{_ADDRESS_PATTERN}(#{_RANGE_PATTERN})?$")
]
NetdevName = Annotated[str, _word(checks.check_netdev), _pattern("^[^ /:#]{1,15}$")]
PfName = Annotated[values.PfName, _word(checks.check_pf_name), _pattern(f"^[^ /:#]{{1,15}}(#{_RANGE_PATTERN})?$")]
Driver = Annotated[
    str, _word(checks.check_driver), WithJsonSchema({"type": "string", "examples": ["kernel", "vfio-pci"]})
]
SelectedDriver = Annotated[
    str, _word(checks.check_driver_selected), WithJsonSchema({"type": "string", "examples": ["iavf", "vfio-pci"]})
]
Indices = Annotated[
    VfIndices,
    _word(VfIndices.parse),
    WithJsonSchema({"type": ["string", "integer"], "pattern": f"^{_RANGE_PATTERN}$", "minimum": 0}),
]
_MAC = {"type": "string", "pattern": "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$"}
Macs = Annotated[
    macs.Macs,
    PlainValidator(macs.check_macs),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["stable", "keep"]},
                {"type": "array", "items": _MAC, "minItems": 1, "uniqueItems": True},
                {"type": "object", "patternProperties": {"^[0-9]+$": _MAC}, "additionalProperties": False},
            ]
        }
    ),
]
Rate = Annotated[
    int,
    _number(0, _MAX_RATE, "a rate in Mbit/s"),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": _MAX_RATE}),
]
Count = Annotated[
    int | Literal["max"],
    PlainValidator(checks.check_count),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_VFS}, {"const": "max"}]}),
]
Mtu = Annotated[
    int,
    _number(_MIN_MTU, _MAX_MTU, "an MTU"),
    WithJsonSchema({"type": "integer", "minimum": _MIN_MTU, "maximum": _MAX_MTU}),
]
Vlan = Annotated[
    int, _number(0, _MAX_VLAN, "a VLAN"), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": _MAX_VLAN})
]
NumaNode = Annotated[
    int,
    _number(0, _MAX_NUMA_NODE, "a NUMA node"),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": _MAX_NUMA_NODE}),
]
LinkType = Annotated[str, _word(checks.check_link_type), _one_of("ether", "infiniband")]
PKey = Annotated[str, _word(checks.check_p_key), _pattern("^0x[0-9a-f]{4}$")]
AcpiIndex = Annotated[str, _word(checks.check_acpi_index), _WORD]
DdpProfile = Annotated[str, _word(checks.check_ddp_profile), WithJsonSchema({"type": "string"})]
AuxType = Annotated[str, _word(checks.check_aux_type), _one_of("sf")]
VdpaType = Annotated[values.VdpaType, _word(checks.check_vdpa_type), _one_of("vhost", "virtio")]
Placement = Annotated[
    values.Placement, _word(checks.check_placement), _pattern(r"^(numa|(numa\+)?(packed|spread|samePF|distinctPF))$")
]
Health = Annotated[
    values.HealthCondition, _word(checks.check_health), _one_of("driver", "deviceNodes", "pfUp", "pfCarrier")
]
Path = Annotated[str, _word(checks.check_path), _PATH]
DevicePath = Annotated[str, _word(checks.check_device_path), _pattern("^/dev/.")]
Permissions = Annotated[str, _word(checks.check_permissions), _pattern("^[rwm]{1,3}$")]
EnvName = Annotated[str, _word(checks.check_env_name)]
Text = Annotated[str, _word(checks.check_text), _WORD]
InfoKey = Annotated[str, _word(checks.check_info_key)]
NodeName = Annotated[str, _word(checks.check_node_name), WithJsonSchema({"type": "string"})]
LabelKey = Annotated[str, _word(checks.check_label_key)]
LabelValue = Annotated[str, _word(checks.check_label_value), _WORD]
