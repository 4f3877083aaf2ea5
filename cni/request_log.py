"""The keys `logLevel` and `logFile`: what the plugin says of one request, in a file of the operator's choice."""

import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

logger = logging.getLogger(__name__)

_FORMAT = "%(asctime)s %(levelname)s {}: %(message)s"


@contextmanager
def log_to(path: str, level: int, request: str) -> Iterator[None]:
    """Write what this thread logs meanwhile to the file as well; `request` stands before each line."""
    stream = _open(path)
    if stream is None:
        yield
        return
    thread = threading.get_ident()
    handler = logging.StreamHandler(stream)
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter(_FORMAT.format(request.replace("%", "%%"))))
    handler.addFilter(lambda record: record.thread == thread)
    root = logging.getLogger("cni")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        stream.close()


def _open(path: str) -> TextIO | None:
    """The file, to be appended to; None when there is to be none or it can not be had, which fails no request."""
    if not path:
        return None
    try:
        # no link is followed, and nothing but a file is opened: the path comes from a network's author
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        logger.warning("logFile %s can not be written: %s", path, error.strerror)
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        logger.warning("logFile %s is no file", path)
        return None
    return os.fdopen(descriptor, "a")
