"""The shape of the config file as pydantic models: which keys there are, what each may hold, and what is the default.

A check raises ValueError with a sentence; `faults` adds where it is. Numbers count as text where text is wanted:
`vendors: [8086]` is what people write in YAML.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    model_validator,
)
from pydantic.alias_generators import to_camel

from sriovdp.config import checks, values
from sriovdp.config.ranges import VfIndices
from sriovdp.model import KERNEL_DRIVER, PciAddress

T = TypeVar("T")


def _word(check: Callable[[str], T]) -> PlainValidator:
    """A value that is one word in the file; the check gives its meaning."""

    def read(value: Any) -> T:
        if type(value) is int:
            value = str(value)
        if not isinstance(value, str):
            raise ValueError("one word is wanted here")  # noqa: TRY004 (pydantic collects ValueError)
        return check(value)

    return PlainValidator(read, json_schema_input_type=str)


def _refuse_used(value: Any) -> Any:
    if value:
        raise ValueError("a known field of sriov-network-device-plugin, not supported yet; remove it")
    return value


def _wrap_object(value: Any) -> Any:
    if not isinstance(value, dict | list):
        raise ValueError("must be an object or a list of objects")  # noqa: TRY004 (pydantic collects ValueError)
    return [value] if isinstance(value, dict) else value


Name = Annotated[str, _word(checks.check_name)]
Prefix = Annotated[str, _word(checks.check_prefix)]
DeviceType = Annotated[str, _word(checks.check_device_type)]
PciId = Annotated[str, _word(checks.check_pci_id)]
Address = Annotated[PciAddress, _word(checks.check_address)]
NetdevName = Annotated[str, _word(checks.check_netdev)]
PfName = Annotated[values.PfName, _word(checks.check_pf_name)]
Driver = Annotated[str, _word(checks.check_driver)]
SelectedDriver = Annotated[str, _word(checks.check_driver_selected)]
Indices = Annotated[VfIndices, _word(VfIndices.parse)]
Mac = Annotated[values.MacPolicy, _word(checks.check_mac)]
Count = Annotated[int | Literal["max"], PlainValidator(checks.check_count, json_schema_input_type=int | Literal["max"])]
Unsupported = Annotated[Any, AfterValidator(_refuse_used)]
"""A field upstream knows and we do not yet. Its empty value (null, false, []) asks for nothing and is let pass."""


class Shape(BaseModel):
    """An object of the file: camel-case keys, no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class LenientShape(Shape):
    """An object in which null and empty text are the same as nothing, as in upstream's Go structs."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: entry for key, entry in value.items() if entry is not None and entry != ""}


class PfSelectShape(Shape):
    """`physicalFunctions[].select`."""

    pf_names: list[NetdevName] = Field(default=[], min_length=1)
    pci_addresses: list[Address] = Field(default=[], min_length=1)
    vendors: list[PciId] = Field(default=[], min_length=1)
    devices: list[PciId] = Field(default=[], min_length=1)

    @model_validator(mode="after")
    def _demand_field(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"needs at least one of {', '.join(map(to_camel, type(self).model_fields))}")
        return self

    def build(self) -> values.PfSelect:
        """The same as plain values."""
        return values.PfSelect(
            pf_names=tuple(self.pf_names),
            pci_addresses=tuple(self.pci_addresses),
            vendors=tuple(self.vendors),
            devices=tuple(self.devices),
        )


class VfShape(Shape):
    """`physicalFunctions[].vfs[]`."""

    range: Indices
    driver: Driver = KERNEL_DRIVER
    mac: Mac = "stable"


class PfShape(Shape):
    """`physicalFunctions[]`."""

    select: PfSelectShape
    num_vfs: Count
    vfs: list[VfShape] = []

    def build(self) -> values.PfConfig:
        """The same as plain values."""
        vfs = tuple(values.VfConfig(vf.range, vf.driver, vf.mac) for vf in self.vfs)
        return values.PfConfig(self.select.build(), self.num_vfs, vfs)


class SelectorShape(LenientShape):
    """`resourceList[].selectors`: the fields of upstream's NetDeviceSelectors and AuxNetDeviceSelectors."""

    vendors: list[PciId] = []
    devices: list[PciId] = []
    drivers: list[SelectedDriver] = []
    pci_addresses: list[Address] = []
    pf_names: list[PfName] = []
    acpi_indexes: Unsupported = None
    root_devices: Unsupported = None
    link_types: Unsupported = None
    ddp_profiles: Unsupported = None
    p_keys: Unsupported = None
    is_rdma: Unsupported = None
    vdpa_type: Unsupported = None
    aux_types: Unsupported = None
    need_vhost_net: Unsupported = None

    def build(self) -> values.Selector:
        """The same as plain values."""
        return values.Selector(
            vendors=tuple(self.vendors),
            devices=tuple(self.devices),
            drivers=tuple(self.drivers),
            pci_addresses=tuple(self.pci_addresses),
            pf_names=tuple(self.pf_names),
        )


class PoolShape(LenientShape):
    """`resourceList[]`: upstream's ResourceConfig."""

    resource_name: Name
    resource_prefix: Prefix = values.DEFAULT_PREFIX
    device_type: DeviceType = "netDevice"
    exclude_topology: StrictBool = False
    selectors: Annotated[list[SelectorShape], Field(min_length=1), BeforeValidator(_wrap_object)]
    additional_info: Unsupported = None

    def build(self) -> values.Pool:
        """The same as plain values."""
        selectors = tuple(selector.build() for selector in self.selectors)
        return values.Pool(self.resource_name, selectors, self.resource_prefix, self.exclude_topology)


class FileShape(LenientShape):
    """The whole file."""

    physical_functions: list[PfShape] = []
    resource_list: list[PoolShape] = []

    @model_validator(mode="after")
    def _demand_entry(self) -> Self:
        if not self.physical_functions and not self.resource_list:
            raise ValueError("asks for nothing: give it physicalFunctions (PFs to split), resourceList (pools) or both")
        return self

    def build(self) -> values.Config:
        """The same as plain values."""
        return values.Config(
            physical_functions=tuple(pf.build() for pf in self.physical_functions),
            pools=tuple(pool.build() for pool in self.resource_list),
        )
