"""The e-switch of a PF by devlink: its mode, inline mode and encap mode (linux/devlink.h).

In our own few messages: pyroute2's cost 23 MiB, drop the driver's own words (extended acknowledgement), and the agent
asks at each look at the node.
"""

import errno
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from sriovdp.errors import KernelError
from sriovdp.kernel.generic import GENERIC, HEAD, find_family
from sriovdp.kernel.rtnl import codec
from sriovdp.kernel.rtnl.requests import Requests
from sriovdp.model import Eswitch

_GET, _SET = 29, 30  # DEVLINK_CMD_ESWITCH_*
_BUS, _DEVICE, _MODE, _INLINE, _ENCAP = 1, 2, 25, 26, 62  # DEVLINK_ATTR_*
_MODES = {0: "legacy", 1: "switchdev"}
_NUMBERS = {name: number for number, name in _MODES.items()}
_U16, _U8 = struct.Struct("=H"), struct.Struct("=B")
_WITHOUT = frozenset({errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EPERM, errno.EINVAL})
"""No devlink in this kernel or of this driver; no e-switch (mlx5_core before Linux 5.10 without VFs); no root."""


class Eswitches(AbstractContextManager["Eswitches"]):
    """One socket for the e-switches of all PFs, opened when the first is asked about. To be used by one thread."""

    def __init__(self) -> None:
        self._requests: Requests | None = None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._requests:
            self._requests.close()

    def find(self, pf: str) -> Eswitch | None:
        """How the e-switch of a PF is set, None when there is none to ask. Raises KernelError."""
        try:
            return self.read(pf)
        except KernelError as error:
            if error.errno in _WITHOUT:
                return None
            raise

    def read(self, pf: str) -> Eswitch:
        """As `find`; the reason why there is none is a KernelError."""
        answer = self._ask(_GET, 0, pf, b"", lambda: "reading the e-switch mode")[0]
        places = codec.index_attributes(answer, HEAD.size)
        if _MODE not in places:
            raise KernelError("the driver reports no e-switch mode", errno=errno.EOPNOTSUPP)
        mode: int = _U16.unpack_from(answer, places[_MODE][0])[0]
        inline, encap = (answer[places[kind][0]] if kind in places else None for kind in (_INLINE, _ENCAP))
        return Eswitch(_MODES.get(mode, f"mode {mode}"), inline, encap)

    def set_mode(self, pf: str, mode: str) -> None:
        """Change the mode. Raises KernelError with the driver's words."""
        self._set(pf, codec.encode(_MODE, _U16.pack(_NUMBERS[mode])), f"setting the e-switch mode {mode}")

    def set_inline(self, pf: str, inline: int) -> None:
        """Change how much of the head VFs put into descriptors, as `Eswitch.inline`."""
        self._set(pf, codec.encode(_INLINE, _U8.pack(inline)), f"setting the e-switch's inline mode {inline}")

    def set_encap(self, pf: str, encap: int) -> None:
        """Change whether the e-switch encapsulates, as `Eswitch.encap`."""
        self._set(pf, codec.encode(_ENCAP, _U8.pack(encap)), f"setting the e-switch's encap mode {encap}")

    def _set(self, pf: str, attribute: bytes, what: str) -> None:
        self._ask(_SET, codec.ACK, pf, attribute, lambda: what)

    def _ask(self, command: int, flags: int, pf: str, attributes: bytes, what: Callable[[], str]) -> list[bytes]:
        family = find_family("devlink")
        if self._requests is None:
            self._requests = Requests(GENERIC)
        device = codec.encode_text(_BUS, "pci") + codec.encode_text(_DEVICE, pf)
        return self._requests.ask(family, flags, HEAD.pack(command, 1, 0) + device + attributes, what)
