"""Sockets in the kubelet's folders: their names, and whether somebody listens on one."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Iterable
from pathlib import Path

import grpc.aio

from sriovdp.errors import SriovdpError
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2 import RegisterRequest
from sriovdp.kubelet.api.deviceplugin_v1beta1_pb2_grpc import RegistrationStub

logger = logging.getLogger(__name__)

Identity = tuple[int, int, int]
"""Device, inode and change time (ns): another file of the same name differs in one of them."""

_PREFIX = "sriovdp-"  # of all our sockets
_LONGEST_PATH = 107  # bytes of a Unix socket's path, unix(7)
_CONNECT_TIMEOUT = 1.0  # seconds; the kernel answers at once unless the queue of the listener is full
_REGISTER_TIMEOUT = 15.0  # seconds; the kubelet gives itself 10 to connect to the plugin before it answers
_CHANNEL_OPTIONS = (
    ("grpc.default_authority", "localhost"),  # the kubelet's gRPC refuses a path there
    ("grpc.use_local_subchannel_pool", 1),  # a failed attempt must not delay the next one
)


def name_socket(directory: Path, resource: str) -> str:
    """A new name for a pool's socket, another one at each call.

    The kubelet remembers a socket by its name: one that it refused is never asked again, and one that was dead is asked
    again after up to two minutes. The resource is shortened where the path is too long for the kernel.
    """
    token = secrets.token_hex(4)
    name = f"{_PREFIX}{resource.replace('/', '_')}-{token}.sock"
    if len(str(directory / name).encode()) > _LONGEST_PATH:
        return f"{_PREFIX}{hashlib.sha256(resource.encode()).hexdigest()[:12]}-{token}.sock"
    return name


def identify(path: Path) -> Identity | None:
    """Which file is at a path now, None when there is none or it cannot be seen."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


async def is_listening(path: Path) -> bool:
    """Whether somebody listens on a socket. One whose queue is full counts as listening."""
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            _, writer = await asyncio.open_unix_connection(path)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:  # a TimeoutError is one too
        return True
    writer.close()
    return True


async def remove_dead(folders: Iterable[Path]) -> None:
    """Remove our sockets on which no agent listens: of one that was killed, or of pools that are no more.

    The kubelet would dial each of them for ten seconds. One that cannot be removed is logged.
    """
    for folder in folders:
        for path in sorted(folder.glob(f"{_PREFIX}*.sock")):
            if not path.is_socket() or await is_listening(path):
                logger.warning("%s: left as it is: it is no socket, or another agent listens on it", path)
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s: cannot remove the socket of an earlier agent: %s", path, error.strerror)
            else:
                logger.info("%s: removed, an earlier agent left it behind", path)


async def register(kubelet: Path, request: RegisterRequest) -> None:
    """Register a plugin at the kubelet's own socket. Raises SriovdpError with the kubelet's reason."""
    async with grpc.aio.insecure_channel(f"unix:{kubelet}", options=_CHANNEL_OPTIONS) as channel:
        try:
            await RegistrationStub(channel).Register(request, timeout=_REGISTER_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise SriovdpError(error.details() or error.code().name) from error
