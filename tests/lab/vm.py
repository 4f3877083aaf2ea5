"""The lab's virtual machine: boots a root, read-only under an overlay, and runs one command in it.

The root is this machine's own, or Debian 13 with the checkout and the cache beside it.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from setup.guest_root import PYTHON, GuestRoot, describe_guest_root
from setup.kernel import Kernel, find_kernel
from setup.qemu import find_qemu
from setup.steps import SetupError, cache_folder
from setup.vnic import prepare_vnic
from tests.lab.accelerator import QEMU, accelerator_options
from tests.lab.control_plane import ControlPlane
from tests.lab.patience import OWN_TIME, OwnTime, Patience, read_cpu_seconds
from tests.lab.shape import Shape

CHECKOUT = Path(__file__).resolve().parents[2]
GUEST_VARIABLE = "SRIOVDP_LAB"
VNIC_VARIABLE = "SRIOVDP_VNIC"  # the folder of the software NIC's modules, where the shape has some
_BUSYBOX = Path("/bin/busybox")
_EARLY_MODULES = ("9p", "9pnet_virtio", "overlay")
_DISK_SIZE = 4 << 30  # bytes
_PERIOD = 0.5  # seconds between two looks at the machine
_TAIL_LINES = 60  # a kernel's panic with its traces
_SETTINGS = ("HOME=/root", "LANG=C.UTF-8", f"{GUEST_VARIABLE}=1")


class LabError(Exception):
    """The machine cannot be started, hung, or died; the message has what it last printed."""


class Vm:
    """One run of one command in one machine. A context manager: at its end the machine is gone.

    `result` is the only folder that the guest can write; it is there until the end of the context.
    """

    def __init__(
        self, shape: Shape, command: Sequence[str], *, interactive: bool = False, own_clock: bool = False
    ) -> None:
        kernel = find_kernel()
        if kernel is None or not shutil.which(QEMU[0]):
            raise LabError("the lab's kernel or QEMU is missing; run `make setup` as root")
        self._qemu = _choose_qemu(shape)
        self._root = _find_root() if shape.root == "trixie" else None
        self._kernel = kernel
        self._shape = shape
        self._command = command
        self._interactive = interactive
        self._own_clock = own_clock
        self._folder = tempfile.TemporaryDirectory(prefix="sriovdp-lab-")
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu_seconds = 0.0
        self._pumps: list[threading.Thread] = []
        self._keeper = threading.Thread(target=self._keep_own_time, daemon=True)
        self._vnic = _prepare_vnic() if shape.vnic else None
        self._control_plane = ControlPlane(Path(self._folder.name) / "control-plane") if shape.control_plane else None
        self._disk = Path(self._folder.name) / "disk"
        self.result = Path(self._folder.name) / "result"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process:
            self._process.kill()
        self._join()
        if self._control_plane:
            self._control_plane.stop()
        self._folder.cleanup()

    def start(self, *, stdout: int = 1, stderr: int = 2) -> None:
        """Boot; the command's stdout and stderr go to these file descriptors as they come."""
        self.result.mkdir()
        (self.result / "command").write_text(self._write_script())
        if self._control_plane:
            self._control_plane.start()
            self._control_plane.hand_over(self.result)
        if self._shape.disk:
            _make_disk(self._disk)
        initramfs = _pack_initramfs(self._kernel, Path(self._folder.name), self._settings())
        pumps = [self._pump_into(stdout), self._pump_into(stderr)]
        try:
            self._process = subprocess.Popen(
                self._qemu_command(initramfs, *pumps),
                stdin=None if self._interactive else subprocess.DEVNULL,
                stdout=None if self._interactive else subprocess.DEVNULL,
                pass_fds=pumps,
            )
        finally:
            for descriptor in pumps:
                os.close(descriptor)
        self._keeper.start()

    @property
    def pid(self) -> int:
        """Process of the started machine."""
        assert self._process, "not started"
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the machine is still on."""
        return self._process is not None and self._process.poll() is None

    def read_cpu_seconds(self) -> float:
        """CPU time that the machine has used; as of its end when it is off."""
        with contextlib.suppress(OSError):
            self._cpu_seconds = read_cpu_seconds(self.pid)
        return self._cpu_seconds

    def wait(self, timeout: float) -> int:
        """Exit code of the command.

        Raises LabError after `timeout` seconds of the machine's own time, and when the machine died before.
        """
        assert self._process, "not started"
        patience = Patience(timeout, self.read_cpu_seconds)
        while self.is_running():
            if patience.is_over():
                self._process.kill()
                self._join()
                raise LabError(f"the lab was killed after {timeout:.0f} s; it last printed\n{self.tail()}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PERIOD)
        self._join()
        try:
            return int((self.result / "exit-code").read_text())
        except FileNotFoundError:
            raise LabError(f"the lab died before the command ended; it last printed\n{self.tail()}") from None

    def tail(self) -> str:
        """The last lines of the guest's console."""
        console = Path(self._folder.name) / "console"
        lines = console.read_text(errors="replace").splitlines() if console.exists() else []
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:]) or "    (nothing)"

    def _join(self) -> None:
        """Wait for the machine's end and for the last of its output."""
        if self._process:
            self._process.wait()
        for pump in self._pumps:
            pump.join()
        if self._keeper.is_alive():
            self._keeper.join()

    def _keep_own_time(self) -> None:
        """Show the guest how much of its own time has passed, by which it measures what it waits for."""
        own, target = OwnTime(self.read_cpu_seconds), self.result / OWN_TIME
        while self.is_running():
            fresh = target.with_name(f".{OWN_TIME}")
            fresh.write_text(f"{own.read():.2f}\n")
            fresh.rename(target)  # whole, whenever it is read
            time.sleep(_PERIOD)

    def _pump_into(self, target: int) -> int:
        """A pipe that a thread empties into `target`: QEMU takes neither terminals nor sockets as a port's file."""
        source, sink = os.pipe()
        pump = threading.Thread(target=_copy, args=(source, os.dup(target)))
        pump.start()
        self._pumps.append(pump)
        return sink

    def _settings(self) -> str:
        values = {
            "MODULES": self._kernel.modules.parent,
            "CONTAINERD": "yes" if self._shape.containerd else "",
            "CONTROL_PLANE": "yes" if self._shape.control_plane else "",
            "INTERACTIVE": "yes" if self._interactive else "",
            "DISK": "yes" if self._shape.disk else "",
            "WIRE": "1" if self._shape.wire else "0",
            **(_describe_root(self._root) if self._root else {}),
            "VNIC": self._shape.vnic,
            "VNIC_LOAD": CHECKOUT / "tests/lab/vnic/load.sh",
            "VNIC_FOLDER": self._vnic or "",
        }
        return "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())

    def _write_script(self) -> str:
        variables = [
            *_SETTINGS,
            # the checkout has been compiled for this machine's Python, and not for another
            *(() if self._root else ("PYTHONDONTWRITEBYTECODE=1",)),
            *([f"{VNIC_VARIABLE}={self._vnic}"] if self._vnic else ()),
            *(f"{key}={os.environ[key]}" for key in ("TERM", "XDG_CACHE_HOME") if key in os.environ),
        ]
        size = shutil.get_terminal_size()
        terminal = f"stty rows {size.lines} cols {size.columns}\n" if self._interactive else ""
        return (
            f"cd {shlex.quote(str(CHECKOUT))}\n{terminal}exec env {shlex.join(variables)} {shlex.join(self._command)}\n"
        )

    def _qemu_command(self, initramfs: Path, stdout: int, stderr: int) -> list[str]:
        options = [
            "console=ttyS0 panic=-1 net.ifnames=0 mitigations=off random.trust_cpu=on loglevel=6",
            "intel_iommu=on iommu=pt",  # passed through for DPDK on igb_uio; vfio has domains of its own all the same
            "no_timer_check",  # on a busy host the check of the emulated timer fails, and the boot with it
            self._shape.kernel_options(),
        ]
        return [
            *("setpriv", "--pdeathsig", "KILL"),  # who is killed leaves no machine behind
            *(*self._qemu, "-no-user-config", "-nodefaults", "-display", "none"),
            *(_attach_disk(self._disk) if self._shape.disk else ("-no-reboot",)),
            *accelerator_options(self._kernel.image, self._qemu, own_clock=self._own_clock),
            *self._shape.qemu_options(),
            *(self._control_plane.qemu_options() if self._control_plane else ()),
            *("-kernel", str(self._kernel.image), "-initrd", str(initramfs), "-append", " ".join(options)),
            *("-serial", f"file:{self._folder.name}/console"),
            *_share("root", self._root.folder if self._root else Path("/"), "readonly=on"),
            *(_share_beside() if self._root else ()),
            *_share("result", self.result),
            *("-device", "virtio-rng-pci,bus=pcie.0", "-device", "virtio-serial-pci,bus=pcie.0"),
            *(_connect_monitor(Path(self._folder.name) / "monitor") if self._shape.monitor else ()),
            *(_terminal() if self._interactive else _pipes(stdout, stderr)),
        ]


def _choose_qemu(shape: Shape) -> tuple[str, ...]:
    """The host's own; for a virtio NIC with VFs the newer one of the cache, which dies of an igb beside it."""
    if shape.nic != "virtio":
        return QEMU
    found = find_qemu()
    if found is None:
        raise LabError("QEMU 11, which the virtio NIC needs, is missing; run `python3 -m setup.qemu` as root")
    return tuple(found.command())


def _find_root() -> GuestRoot:
    root = describe_guest_root()
    if not root.is_complete:
        raise LabError("Debian 13 as the guest's root is missing; run `python3 -m setup.guest_root` as root")
    return root


def _describe_root(root: GuestRoot) -> dict[str, object]:
    """What the first program needs to put the checkout and its Python packages into a root that has neither."""
    return {"CHECKOUT": CHECKOUT, "CACHE": cache_folder(), "PYTHON": PYTHON, "PACKAGES": root.packages}


def _share_beside() -> list[str]:
    return [
        *_share("checkout", CHECKOUT, "readonly=on"),
        *_share("cache", cache_folder(), "readonly=on"),
    ]


def _prepare_vnic() -> Path:
    try:
        return prepare_vnic()
    except SetupError as error:
        raise LabError(f"the software NIC cannot be built: {error}") from error


def _copy(source: int, target: int) -> None:
    with (
        open(source, "rb", buffering=0) as reader,
        open(target, "wb", buffering=0) as writer,
        contextlib.suppress(BrokenPipeError),  # who reads has seen enough
    ):
        shutil.copyfileobj(reader, writer)


def _make_disk(path: Path) -> None:
    """A file system that takes the room of what is written."""
    with path.open("wb") as image:
        image.truncate(_DISK_SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True, capture_output=True)


def _attach_disk(path: Path) -> list[str]:
    drive = f"file={path},if=none,id=disk,format=raw,cache=unsafe"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=disk,bus=pcie.0"]


def _share(tag: str, path: Path, *options: str) -> list[str]:
    settings = ",".join(("local", f"id={tag}", f"path={path}", "security_model=none", "multidevs=remap", *options))
    return ["-fsdev", settings, "-device", f"virtio-9p-pci,bus=pcie.0,fsdev={tag},mount_tag={tag}"]


def _connect_monitor(socket: Path) -> list[str]:
    """The machine's monitor as a port of the guest: QEMU is both ends of a socket."""
    return [
        *("-chardev", f"socket,id=monitor,path={socket},server=on,wait=off", "-mon", "chardev=monitor,mode=readline"),
        *("-chardev", f"socket,id=operator,path={socket}"),
        *("-device", "virtserialport,chardev=operator,name=monitor,nr=9"),
    ]


def _terminal() -> list[str]:
    return ["-chardev", "stdio,id=terminal,signal=off", "-device", "virtconsole,chardev=terminal,nr=0"]


def _pipes(stdout: int, stderr: int) -> list[str]:
    """The guest's ports for stdout and stderr, each going straight into one of the caller's file descriptors."""
    options: list[str] = []
    for number, descriptor in enumerate((stdout, stderr), 1):
        options += ["-add-fd", f"fd={descriptor},set={number}"]
        options += ["-chardev", f"file,id=port{number},path=/dev/fdset/{number},append=on"]
        options += ["-device", f"virtserialport,chardev=port{number},nr={number}"]
    return options


def _pack_initramfs(kernel: Kernel, folder: Path, settings: str) -> Path:
    """A root with busybox, the modules for the real root, and the first program."""
    tree = folder / "initramfs"
    for name in ("bin", "modules", "proc", "sys", "dev", "lower", "memory", "new"):
        (tree / name).mkdir(parents=True)
    shutil.copy(_BUSYBOX, tree / "bin/busybox")
    shutil.copy(Path(__file__).parent / "guest.sh", tree / "init")
    (tree / "init").chmod(0o755)
    (tree / "settings").write_text(settings)
    for number, module in enumerate(_order_modules(kernel)):
        shutil.copy(module, tree / "modules" / f"{number:02d}-{module.name}")
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    command: list[str | Path] = [_BUSYBOX, "cpio", "-o", "-H", "newc", "-F", folder / "initramfs.cpio"]
    subprocess.run(command, cwd=tree, input=names.encode(), capture_output=True, check=True)
    return folder / "initramfs.cpio"


def _order_modules(kernel: Kernel) -> list[Path]:
    """The files of the early modules with what they need, in order of loading."""
    listed = subprocess.run(
        ["modprobe", "-d", kernel.folder, "-S", kernel.version, "-a", "--show-depends", *_EARLY_MODULES],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    paths = [Path(line.split()[1]) for line in listed.stdout.splitlines() if line.startswith("insmod")]
    return list(dict.fromkeys(paths))


def run(
    shape: Shape, command: Sequence[str], *, timeout: float, interactive: bool = False, own_clock: bool = False
) -> int:
    """Boot, run a command on this process's own stdout and stderr, and give its exit code. Raises LabError."""
    sys.stdout.flush()
    with Vm(shape, command, interactive=interactive, own_clock=own_clock) as vm:
        vm.start()
        return vm.wait(timeout)
