"""The machine's monitor from inside the guest, for shapes that have one: what a person does to the machine itself."""

from pathlib import Path

_PORTS = Path("/sys/class/virtio-ports")


def set_link(number: int, *, up: bool) -> None:
    """Plug the cable of a PF in, or pull it; PFs are counted from 0 in the machine's order."""
    _command(f"set_link net{number} {'on' if up else 'off'}")


def _command(text: str) -> None:
    [name] = (path for path in _PORTS.glob("*/name") if path.read_text().strip() == "monitor")
    with Path(f"/dev/{name.parent.name}").open("wb", buffering=0) as monitor:
        monitor.write(f"{text}\n".encode())
