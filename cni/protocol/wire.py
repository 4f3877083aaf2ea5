"""What the launcher and the agent say to each other over the agent's Unix stream socket; encoding only, no I/O.

One connection carries one request and one reply. All numbers are unsigned, 32 bits, big-endian.

    request   offset  0  magic, the four bytes "SRIO"
                      4  protocol version, 1
                      8  errno of opening CNI_NETNS; 0 when it was opened, or when CNI_NETNS is empty
                     12  size of the environment in bytes, at most 64 KiB
                     16  size of stdin in bytes, at most 1 MiB
                     20  the environment: every CNI_* variable as NAME=VALUE in UTF-8, each ended by a NUL
                      .  stdin as it came
    reply     offset  0  magic
                      4  protocol version, 1
                      8  exit code for the launcher, at most 255
                     12  size of what it shall print, at most 4 MiB
                     16  what it shall print

The network namespace travels as one file descriptor (SCM_RIGHTS) with the first byte of the request. Who closes the
connection before the reply has come does not want it any more.

Versions: magic and protocol version stay where they are in every later version, and every launcher reads replies of
version 1. So an agent answers a request of a version that it does not speak by an error in a reply of version 1, which
any launcher prints; and a launcher that gets a reply of another version says so itself.

What the launcher keeps on disk while there is no agent is a request, followed by a trailer:

    trailer   offset  0  device of the network namespace that CNI_NETNS was, 64 bits, 0 when it could not be opened
                      8  inode of it, 64 bits
                     16  boot in which that means something, 36 bytes as in /proc/sys/kernel/random/boot_id, or NULs

The launcher's side of this is cni/launcher/sriov.c and cni/launcher/spool.h.
"""

import struct
from dataclasses import dataclass

from sriovdp.errors import SriovdpError
from sriovdp.model import name_container

MAGIC = b"SRIO"
PROTOCOL_VERSION = 1
ENVIRONMENT_MAX = 64 << 10
STDIN_MAX = 1 << 20
STDOUT_MAX = 4 << 20

REPORT = "REPORT"
"""A command that no runtime sends: the agent answers what is not done, as JSON, for `sriovdp status`."""

RELOAD = "RELOAD"
"""A command that no runtime sends: the agent reads its config file now, for `sriovdp reload`; it answers JSON."""

DELEGATED = "CNI_SRIOVDP_DELEGATED"
"""A variable in the environment of IPAM plugins: this plugin, called with it, would wait for its own lock."""

_REQUEST = struct.Struct(">4sIIII")
_REPLY = struct.Struct(">4sIII")
_TRAILER = struct.Struct(">QQ36s")
HEADER_SIZE = _REQUEST.size
REPLY_HEADER_SIZE = _REPLY.size
SPOOLED_MAX = HEADER_SIZE + ENVIRONMENT_MAX + STDIN_MAX + _TRAILER.size

_ERRNO_MAX = 4095  # MAX_ERRNO of the kernel, include/linux/err.h
_EXIT_CODE_MAX = 255

_OLDER_AGENT = "the agent is the older one: update it, then the call succeeds"
_OLDER_LAUNCHER = "the launcher is the older one: run `sriovdp install-cni` of the agent's release on this node"

# field of Request -> environment variable
_VARIABLES = {
    "command": "CNI_COMMAND",
    "container_id": "CNI_CONTAINERID",
    "netns": "CNI_NETNS",
    "ifname": "CNI_IFNAME",
    "args": "CNI_ARGS",
    "path": "CNI_PATH",
}


class WireError(SriovdpError):
    """The other side sent what is no frame of this protocol, or a frame would be over the bounds."""


class VersionError(WireError):
    """The other side speaks another protocol version."""


@dataclass(frozen=True, slots=True)
class Request:
    """One exec of the launcher. A CNI_* variable that was not set is the empty string.

    `netns_errno` is why the launcher could not open CNI_NETNS, 0 if it could or had nothing to open. `is_delegated`:
    this plugin called itself as an IPAM plugin, as DELEGATED was in the environment. Only old launchers send it.
    """

    command: str
    container_id: str
    netns: str
    ifname: str
    args: str
    path: str
    stdin: bytes
    netns_errno: int = 0
    is_delegated: bool = False

    @property
    def key(self) -> str:
        """Name of what a request is about, and of its lock: one interface of one container."""
        return f"{self.container_id}-{self.ifname}"

    @property
    def caller(self) -> str:
        """Who asks, for a person: the pod or container with its interface; empty for STATUS, GC and VERSION."""
        return name_container(self.args, self.container_id, self.ifname)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the launcher prints on stdout, and its exit code (0 to 255)."""

    exit_code: int
    stdout: bytes


@dataclass(frozen=True, slots=True)
class Spooled:
    """A request from the spool, and which network namespace CNI_NETNS was in which boot; 0 and 0 if unknown."""

    request: Request
    netns_dev: int
    netns_ino: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Header:
    """The fixed start of a request; sizes are in bytes and within the bounds."""

    netns_errno: int
    environment_size: int
    stdin_size: int

    @property
    def body_size(self) -> int:
        """How many bytes follow the header."""
        return self.environment_size + self.stdin_size


def encode_request(request: Request) -> bytes:
    """The frame of a request. Raises WireError when it is over the bounds or a text holds a NUL."""
    texts = {variable: getattr(request, field) for field, variable in _VARIABLES.items()}
    for variable, text in texts.items():
        if "\0" in text:
            raise WireError(f"{variable} {text!r} holds a NUL")
    environment = b"".join(f"{variable}={text}\0".encode() for variable, text in texts.items() if text)
    _check_bound("errno", request.netns_errno, _ERRNO_MAX)
    _check_bound("environment", len(environment), ENVIRONMENT_MAX)
    _check_bound("stdin", len(request.stdin), STDIN_MAX)
    header = _REQUEST.pack(MAGIC, PROTOCOL_VERSION, request.netns_errno, len(environment), len(request.stdin))
    return header + environment + request.stdin


def decode_header(data: bytes) -> Header:
    """Read the first HEADER_SIZE bytes of a request. Raises WireError."""
    netns_errno, environment_size, stdin_size = _unpack(_REQUEST, data)
    _check_bound("errno", netns_errno, _ERRNO_MAX)
    _check_bound("environment", environment_size, ENVIRONMENT_MAX)
    _check_bound("stdin", stdin_size, STDIN_MAX)
    return Header(netns_errno, environment_size, stdin_size)


def decode_body(header: Header, body: bytes) -> Request:
    """Read the `header.body_size` bytes that follow the header. Raises WireError."""
    if len(body) != header.body_size:
        raise WireError(f"the body of a request has {len(body)} bytes, its header says {header.body_size}")
    variables = _decode_environment(body[: header.environment_size])
    texts = {field: variables.get(variable, "") for field, variable in _VARIABLES.items()}
    return Request(
        **texts,
        stdin=body[header.environment_size :],
        netns_errno=header.netns_errno,
        is_delegated=DELEGATED in variables,
    )


def encode_reply(reply: Reply) -> bytes:
    """The frame of a reply. Raises WireError when it is over the bounds."""
    _check_bound("exit code", reply.exit_code, _EXIT_CODE_MAX)
    _check_bound("stdout", len(reply.stdout), STDOUT_MAX)
    return _REPLY.pack(MAGIC, PROTOCOL_VERSION, reply.exit_code, len(reply.stdout)) + reply.stdout


def decode_reply(frame: bytes) -> Reply:
    """Read a whole reply. Raises WireError."""
    exit_code, size = _unpack(_REPLY, frame[:REPLY_HEADER_SIZE])
    stdout = frame[REPLY_HEADER_SIZE:]
    _check_bound("exit code", exit_code, _EXIT_CODE_MAX)
    _check_bound("stdout", size, STDOUT_MAX)
    if len(stdout) != size:
        raise WireError(f"a reply has {len(stdout)} bytes of stdout, its header says {size}")
    return Reply(exit_code, stdout)


def encode_spooled(spooled: Spooled) -> bytes:
    """A file of the spool. Raises WireError as `encode_request` does."""
    trailer = _TRAILER.pack(spooled.netns_dev, spooled.netns_ino, spooled.boot_id.encode())
    return encode_request(spooled.request) + trailer


def decode_spooled(data: bytes) -> Spooled:
    """Read a file of the spool. Raises WireError."""
    header = decode_header(data[:HEADER_SIZE])
    end = HEADER_SIZE + header.body_size
    if len(data) != end + _TRAILER.size:
        raise WireError(f"a spooled request has {len(data)} bytes, its header says {end + _TRAILER.size}")
    netns_dev, netns_ino, boot_id = _TRAILER.unpack(data[end:])
    return Spooled(
        decode_body(header, data[HEADER_SIZE:end]), netns_dev, netns_ino, _decode_text(boot_id.rstrip(b"\0"))
    )


def _unpack(shape: struct.Struct, data: bytes) -> tuple[int, ...]:
    """The numbers after magic and protocol version."""
    if len(data) != shape.size:
        raise WireError(f"a header has {len(data)} bytes, not {shape.size}")
    magic, version, *numbers = shape.unpack(data)
    if magic != MAGIC:
        raise WireError(f"a frame starts with {magic!r}, not {MAGIC!r}")
    if version != PROTOCOL_VERSION:
        raise VersionError(
            f"the launcher speaks protocol version {version}, the sriovdp agent {PROTOCOL_VERSION}",
            hint=_OLDER_AGENT if version > PROTOCOL_VERSION else _OLDER_LAUNCHER,
        )
    return tuple(numbers)


def _decode_environment(data: bytes) -> dict[str, str]:
    if data and not data.endswith(b"\0"):
        raise WireError("the environment does not end with a NUL")
    variables: dict[str, str] = {}
    for entry in data.split(b"\0")[:-1]:
        name, separator, value = _decode_text(entry).partition("=")
        if not separator or not name.startswith("CNI_"):
            raise WireError(f"{entry!r} in the environment is no CNI_* variable")
        if name in variables:
            raise WireError(f"{name} is in the environment twice")
        variables[name] = value
    return variables


def _decode_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WireError(f"{data!r} in a request is not UTF-8") from error


def _check_bound(what: str, value: int, bound: int) -> None:
    if not 0 <= value <= bound:
        raise WireError(f"{what} of {value} is out of bounds, at most {bound}")
