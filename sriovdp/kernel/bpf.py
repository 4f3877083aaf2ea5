"""Which BPF programs are attached to an interface by tcx (linux/bpf.h): they stay when it changes its namespace."""

import ctypes
import errno
import os
import platform
import struct

from sriovdp.errors import KernelError

_CALLS = {"x86_64": 321, "aarch64": 280, "ppc64le": 361, "s390x": 351, "riscv64": 280}  # bpf(2)
_PROG_QUERY = 16
_TCX = {"ingress": 46, "egress": 47}  # BPF_TCX_*, of Linux 6.6
_QUERY = struct.Struct("=IIIIQI36x")  # of union bpf_attr: interface, attach type, two kinds of flags, ids, their number
_ROOM = 64  # programs (BPF_MPROG_MAX)
_NONE = frozenset({errno.ENOENT, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})  # no program, or no tcx in this kernel
_libc = ctypes.CDLL(None, use_errno=True)


def list_tcx_programs(ifindex: int) -> dict[str, str]:
    """The ids of the programs of each direction, as one text. Raises KernelError, with EPERM without CAP_NET_ADMIN."""
    return {f"tcx {direction}": ",".join(map(str, _query(ifindex, kind))) for direction, kind in _TCX.items()}


def _query(ifindex: int, kind: int) -> list[int]:
    ids = (ctypes.c_uint32 * _ROOM)()
    query = ctypes.create_string_buffer(_QUERY.pack(ifindex, kind, 0, 0, ctypes.addressof(ids), _ROOM))
    number = _CALLS.get(platform.machine())
    if number is None:
        return []
    if _libc.syscall(number, _PROG_QUERY, query, _QUERY.size) != 0:
        reason = ctypes.get_errno()
        if reason in _NONE:
            return []
        raise KernelError(
            f"reading the BPF programs of interface {ifindex} failed: {os.strerror(reason)}", errno=reason
        )
    return list(ids[: _QUERY.unpack_from(query)[5]])
