"""Every error this program raises on purpose.

    SriovdpError                 what was tried, on which device, why it failed, what to do
    ├── ConfigError              the config file is invalid; carries every fault
    ├── DeviceError              a PF or VF is not there, or is not what it should be
    │   ├── InUseError           the change would disturb a device in use: refused
    │   └── VerifyError          the kernel accepted a change, but the value read back differs
    ├── KernelError              the kernel refused a change; carries its errno
    ├── JournalError             the journal cannot be read or written
    │   └── DamageError          what a file of it holds cannot be understood
    ├── BusyError                another program or thread works on the same thing now
    └── CniError                 a CNI verb failed; carries the code of the CNI specification

The message says what failed and why; `hint` says what to do. `naming` puts the device or the pod in front.
"""

import errno as errno_names
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class SriovdpError(Exception):
    """Base of all errors of this program.

    `message` says what failed, on which device, and why; `hint` is an instruction for the operator. `subject` is the
    device or pod that the message starts with, empty until it is named.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.subject = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def name(self, subject: str) -> None:
        """Put the device or pod in front of the message. The first name stays: it is the closest."""
        if subject and not self.subject:
            self.subject = subject
            if subject not in self.message:
                self.message = f"{subject}: {self.message}"

    @property
    def reason(self) -> str:
        """Message and hint without the subject, for a line that starts with it."""
        return str(self).removeprefix(f"{self.subject}: ")


@contextmanager
def naming(subject: object) -> Iterator[None]:
    """Let errors start with `str(subject)`, which is asked for only when there is one."""
    try:
        yield
    except SriovdpError as error:
        error.name(str(subject))
        raise


class ConfigError(SriovdpError):
    """The config file is invalid. `faults` holds one sentence for each fault, in file order; there is at least one."""

    def __init__(self, source: str, faults: list[str]) -> None:
        listed = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"{source}: {len(faults)} fault{'s' if len(faults) > 1 else ''}\n{listed}")
        self.source = source
        self.faults = faults


class DeviceError(SriovdpError):
    """A PF or VF is not there, or is not what the caller expects."""


class InUseError(DeviceError):
    """The change would disturb a device in use. Nothing was changed."""


class VerifyError(DeviceError):
    """The kernel accepted a change, but the value read back differs."""


class KernelError(SriovdpError):
    """The kernel refused a change. `errno` is its error number, 0 if it gave none."""

    def __init__(self, message: str, *, errno: int = 0, hint: str = "") -> None:
        name = errno_names.errorcode.get(errno, "")
        super().__init__(f"{message} ({name})" if name else message, hint=hint)
        self.errno = errno


class JournalError(SriovdpError):
    """A file of the journal cannot be read or written."""


class DamageError(JournalError):
    """What a file of the journal holds cannot be understood; another try finds the same."""


class BusyError(SriovdpError):
    """Another program or thread works on the same thing now. Nothing was changed; the call can be repeated."""


class CniError(SriovdpError):
    """A CNI verb failed. `code` is an error code of the CNI specification (section "Error"), or ours from 100 on."""

    def __init__(self, code: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


@contextmanager
def keep_first_error(after: Callable[[], object]) -> Iterator[None]:
    """Do `after` in any case. When the body failed, its error is raised, and what `after` raises is logged only.

    Of a device that is pulled out each call fails; the first one says where.
    """
    try:
        yield
    except BaseException:
        try:
            after()
        except SriovdpError as error:
            logger.info("%s; this is after another error", error)
        raise
    after()
