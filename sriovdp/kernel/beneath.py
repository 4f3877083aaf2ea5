"""Open a file below a folder and nowhere else: openat2(2), Linux 5.6."""

import ctypes
import errno
import os
from pathlib import Path

_OPENAT2 = 437  # the same number on x86_64 and arm64: include/uapi/asm-generic/unistd.h
# include/uapi/linux/openat2.h
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08
_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
_ATTEMPTS = 8  # the kernel answers EAGAIN when a folder on the way is renamed meanwhile

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(folder: str | Path, relative: str, flags: int, mode: int = 0) -> int:
    """Open `relative` below `folder` and give its fd, with close-on-exec set.

    `folder` may lead through symbolic links, `relative` may not, and never leaves the folder. The call does not wait
    for the other end of a FIFO. Raises OSError: ELOOP for a link, EXDEV for a way out, ENOSYS for an old kernel.
    """
    try:
        path = os.fsencode(relative)
    except UnicodeEncodeError:  # JSON can hold a lone surrogate, which no file system names
        path = b"\0"
    if b"\0" in path:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), f"{folder}/{relative!a}")
    how = _OpenHow(flags | os.O_CLOEXEC | (0 if flags & os.O_PATH else os.O_NONBLOCK | os.O_NOCTTY), mode, _RESOLVE)
    start = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            opened: int = _libc.syscall(
                ctypes.c_long(_OPENAT2),
                ctypes.c_int(start),
                ctypes.c_char_p(path),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
            if opened >= 0:
                return opened
            number = ctypes.get_errno()
            if number != errno.EAGAIN:
                break
    finally:
        os.close(start)
    raise OSError(number, os.strerror(number), f"{folder}/{relative}")
