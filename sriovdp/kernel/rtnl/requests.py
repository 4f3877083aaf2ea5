"""A netlink socket that asks one question at a time. What the system calls or the kernel refuse is a KernelError."""

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from sriovdp.errors import KernelError
from sriovdp.kernel.rtnl import codec

_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 270, 10, 11, 12
_ROOM = 128 << 10  # bytes; a VF list of 64 KiB with the rest of its message
_ATTEMPTS = 5  # as containernetworking/plugins pkg/netlinksafe: a table that changes interrupts its dump

What = str | Callable[[], str]
"""What was asked and of which device, for an error: "listing the addresses of eth0". Called only when it failed."""


class Requests:
    """A socket in the network namespace of the thread that made it. To be used by one thread. Raises KernelError."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE, *, strict: bool = False) -> None:
        """With `strict` a list has what was asked for, where the kernel can do that (Linux 4.20), else all."""
        self._sequence = 0
        self._room = _ROOM
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
            if strict:
                with suppress(OSError):
                    self._socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
        except OSError as error:
            raise _explain("opening a netlink socket", error) from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, kind: int, flags: int, body: bytes, what: What) -> list[bytes]:
        """The bodies of the kernel's answers; of none for a change. Raises KernelError, which begins with `what`.

        A list that changed while the kernel wrote it, or that had no room, is asked for again.
        """
        try:
            for _ in range(_ATTEMPTS):
                answers = self._ask_once(kind, flags, body)
                if answers is not None:
                    return answers
        except OSError as error:
            raise _explain(what, error) from error
        raise KernelError(
            f"{_write(what)} failed: changes interrupted the kernel's list {_ATTEMPTS} times", errno=errno.EINTR
        )

    def _ask_once(self, kind: int, flags: int, body: bytes) -> list[bytes] | None:
        """None when the answer is not whole. Raises OSError."""
        self._sequence += 1
        self._socket.send(codec.encode_request(kind, flags, self._sequence, body))
        found: list[bytes] = []
        whole = True
        while True:
            data, _, received, _ = self._socket.recvmsg(self._room)
            if received & socket.MSG_TRUNC:
                self._room *= 4
                self._drop_rest()
                return None
            for answer, answer_flags, start, end in codec.list_messages(data, self._sequence):
                whole &= not answer_flags & codec.INTERRUPTED
                if answer in {codec.ERROR, codec.DONE}:
                    codec.check_status(data, answer_flags, start, end)
                    return found if whole else None
                found.append(data[start:end])
            if found and not flags & (codec.DUMP | codec.ACK):
                return found if whole else None

    def _drop_rest(self) -> None:
        """Read what is left of an answer: the kernel writes a list as it is read, and no other one until then."""
        with suppress(BlockingIOError):
            while self._socket.recv(self._room, socket.MSG_DONTWAIT):
                pass


def _explain(what: What, error: OSError) -> KernelError:
    said = error.strerror or os.strerror(error.errno or 0)
    return KernelError(f"{_write(what)} failed: {said}", errno=error.errno or 0)


def _write(what: What) -> str:
    return what if isinstance(what, str) else what()
