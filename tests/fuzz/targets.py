"""What is fuzzed: each target takes one input, and raises nothing but the errors that its callers handle."""

import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from cni.foreign_state import ForeignState
from cni.policy import Policy
from cni.protocol.effect import list_idle_keys
from cni.protocol.environment import check_environment
from cni.protocol.nad import check_nad
from cni.protocol.netconf import Network, parse_netconf, parse_network
from cni.protocol.permission import check_permission
from cni.protocol.spec import code_of, parse_result, render_error
from cni.protocol.wire import HEADER_SIZE, Request, decode_body, decode_header, decode_reply, decode_spooled
from sriovdp.config.file import parse
from sriovdp.errors import SriovdpError
from sriovdp.kernel.sysfs import Sysfs
from sriovdp.pools.grants import Grant, Grants
from sriovdp.state.journal import Journal
from sriovdp.state.provisioned import survey_records
from tests.fuzz import samples
from tests.fuzz.documents import Choices, make_document

_STRICT = Policy((), (), (), trust=False, mac=False, drivers=frozenset({"kernel"}), vlans=((100, 199),), sysctls=())
_COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")


@dataclass(frozen=True)
class Target:
    """`run` takes one input. `guided` inputs come from the fuzzer, which follows the code, and `diced` ones from dice.

    The fuzzer finds the way past a check, and its watching costs ten times what the check does.
    """

    run: Callable[[Choices], None]
    guided: int = 100_000
    diced: int = 900_000


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="sriovdp-fuzz-", dir="/dev/shm"))


def _refuse_raw(choices: Choices, read: Callable[[bytes], object]) -> None:
    with contextlib.suppress(SriovdpError):
        read(choices.ConsumeBytes(choices.remaining_bytes()))


def read_request(choices: Choices) -> None:
    """What comes on the agent's socket, and its environment."""
    data = choices.ConsumeBytes(choices.remaining_bytes())
    try:
        header = decode_header(data[:HEADER_SIZE])
        check_environment(decode_body(header, data[HEADER_SIZE:]))
    except SriovdpError:
        pass


def read_spooled(choices: Choices) -> None:
    """A file of the spool."""
    _refuse_raw(choices, decode_spooled)


def read_reply(choices: Choices) -> None:
    """An agent's answer, as `sriovdp status` reads it."""
    _refuse_raw(choices, decode_reply)


def read_netconf(choices: Choices) -> None:
    """A network configuration, for each verb. Every error can be rendered for the runtime."""
    command = _COMMANDS[choices.ConsumeIntInRange(0, len(_COMMANDS) - 1)]
    args = choices.ConsumeUnicode(20) if choices.ConsumeIntInRange(0, 7) == 0 else "IgnoreUnknown=1;K8S_POD_NAME=red"
    stdin = make_document(choices, samples.NETCONFS)
    try:
        parse_network(stdin, command)
        conf = parse_netconf(stdin, args, command)
        for mode in ("kernel", "dpdk", None):
            list_idle_keys(conf, mode)
        check_permission(conf, _STRICT)
    except SriovdpError as error:
        assert code_of(error) in {1, 4, 5, 6, 7, 11}, error  # noqa: PT017 - the fuzzer counts it as a crash
        render_error(error, "1.1.0")


def read_nad(choices: Choices) -> None:
    """A NetworkAttachmentDefinition: its faults are reported, never raised."""
    has_resource = choices.ConsumeIntInRange(0, 1) == 1
    document = make_document(choices, samples.NADS)
    check_nad(document, has_resource=has_resource, policy=_STRICT)
    with contextlib.suppress(ValueError, RecursionError):
        decoded = json.loads(document)
        if isinstance(decoded, dict):
            check_nad(decoded | {"kind": "NetworkAttachmentDefinition"}, mode="dpdk")


def read_result(choices: Choices) -> None:
    """What an IPAM plugin prints."""
    try:
        document = json.loads(make_document(choices, samples.RESULTS))
    except (ValueError, RecursionError):
        return
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # as every caller handles them
        parse_result(document)


def read_config(choices: Choices) -> None:
    """The config file."""
    text = make_document(choices, samples.CONFIGS).decode(errors="replace")
    with contextlib.suppress(SriovdpError):
        parse(text, "fuzz")


class Stored:
    """Targets that read one file of a folder."""

    def __init__(self) -> None:
        self._root = _folder()
        self._journal = Journal(self._root)
        self._grants = Grants(self._root)
        self._sysfs = Sysfs(self._root / "sys")
        (self._root / "intel.com_sriov").mkdir()
        (self._root / "pci").mkdir()

    def read_journal(self, choices: Choices) -> None:
        """An attachment: understood, with the types that all code relies on, or damaged."""
        path = self._root / "attachment-c1-net1.json"
        path.write_bytes(make_document(choices, samples.ATTACHMENTS))
        for attachment in self._journal.survey()[0]:
            check_types(attachment)

    def read_record(self, choices: Choices) -> None:
        """How a PF was: understood, or damaged and named by its PF."""
        path = self._root / f"pf-{samples.PF}.json"
        path.write_bytes(make_document(choices, samples.RECORDS))
        records, damaged = survey_records(self._journal)
        assert {*records, *damaged} == {samples.PF}
        for record in records.values():
            check_types(record)
            assert all(index.isdecimal() for index in record.macs)

    def read_grant(self, choices: Choices) -> None:
        """A grant."""
        path = self._root / "intel.com_sriov" / f"{samples.VF}.json"
        path.write_bytes(make_document(choices, samples.GRANTS))
        grant = self._grants.find("intel.com/sriov", samples.VF)
        if grant:
            check_types(grant)
            grant.differences(Grant(samples.VF, "VF 0", "vfio-pci", (("/dev/vfio/1", "/dev/vfio/1"),)))

    def read_cache(self, choices: Choices) -> None:
        """What sriov-cni and the plugin of 2017 left."""
        (self._root / "c1-net1").write_bytes(make_document(choices, samples.CACHES))
        (self._root / "pci" / samples.VF).write_bytes(choices.ConsumeBytes(24))
        foreign = ForeignState(self._root)
        request = Request("DEL", "c1", "/run/netns/none", "net1", "", "", b"{}")
        found = foreign.find(request, Network("net-a", "1.0.0"), None, self._sysfs)
        if found:
            check_types(found)
        foreign.find_owner(samples.VF)


def check_types(value: Any) -> None:
    """Assert that each field of a dataclass is what its annotation says."""
    for name, kind in get_type_hints(type(value)).items():
        _check(getattr(value, name), kind, f"{type(value).__name__}.{name}")


def _check(value: Any, kind: Any, where: str) -> None:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if origin is None:
        assert isinstance(value, kind), f"{where} is {value!r}"
        if hasattr(value, "__dataclass_fields__"):
            check_types(value)
    elif origin is tuple:
        assert isinstance(value, tuple), f"{where} is {value!r}"
        for part in value:
            _check(part, arguments[0], where)
    elif getattr(origin, "__name__", "") == "Literal" or str(origin) == "typing.Literal":
        assert value in arguments, f"{where} is {value!r}"
    elif isinstance(origin, type) and origin.__module__ == "collections.abc":
        assert isinstance(value, origin), f"{where} is {value!r}"
    else:  # a union
        assert any(_fits(value, one, where) for one in arguments), f"{where} is {value!r}"


def _fits(value: Any, kind: Any, where: str) -> bool:
    try:
        _check(value, kind, where)
    except AssertionError:
        return False
    return True


def list_targets() -> dict[str, Target]:
    """All targets by name."""
    stored = Stored()
    return {
        "request": Target(read_request, 1_000_000, 0),
        "spool": Target(read_spooled, 1_000_000, 0),
        "reply": Target(read_reply, 1_000_000, 0),
        "netconf": Target(read_netconf),
        "nad": Target(read_nad),
        "result": Target(read_result),
        "config": Target(read_config, 20_000, 80_000),  # reading YAML takes long
        "journal": Target(stored.read_journal),
        "records": Target(stored.read_record),
        "grants": Target(stored.read_grant),
        "caches": Target(stored.read_cache),
    }
