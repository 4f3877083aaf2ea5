"""`python -m tests.lab.bpf HOOK IFNAME`: attach a BPF program that drops all to an interface of this network namespace.

HOOK is `xdp`, for generic XDP, or `tcx`, for ingress (Linux 6.6). Both stay when this process has ended (linux/bpf.h).
"""

import ctypes
import os
import socket
import struct
import sys

from pyroute2 import IPRoute

_BPF = 321  # of x86-64, which the lab is
_PROG_LOAD, _PROG_ATTACH = 5, 8
_KINDS = {"xdp": (6, 1), "tcx": (3, 2)}  # BPF_PROG_TYPE_XDP with XDP_DROP, BPF_PROG_TYPE_SCHED_CLS with TC_ACT_SHOT
_TCX_INGRESS = 46
_XDP_GENERIC = 2  # XDP_FLAGS_SKB_MODE
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Load and attach."""
    hook, ifname = sys.argv[1:]
    kind, verdict = _KINDS[hook]
    code = struct.pack("<BBhi", 0xB7, 0, 0, verdict) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # r0 = verdict; exit
    text, licence, log = (ctypes.create_string_buffer(size_or_data) for size_or_data in (code, b"GPL", 4096))
    program = _call(
        _PROG_LOAD,
        struct.pack(
            "<IIQQIIQ", kind, 2, ctypes.addressof(text), ctypes.addressof(licence), 1, 4096, ctypes.addressof(log)
        ),
    )
    ifindex = socket.if_nametoindex(ifname)
    if hook == "tcx":
        _call(_PROG_ATTACH, struct.pack("<IIII", ifindex, program, _TCX_INGRESS, 0))
        return
    with IPRoute() as netlink:
        attributes = [["IFLA_XDP_FD", program], ["IFLA_XDP_FLAGS", _XDP_GENERIC]]
        netlink.link("set", index=ifindex, xdp={"attrs": attributes})


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 128)
    done = _libc.syscall(_BPF, command, buffer, 128)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(done)


if __name__ == "__main__":
    main()
