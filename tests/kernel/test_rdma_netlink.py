"""The RDMA subsystem's netlink messages, as `rdma` of iproute2 has them and the kernel of the lab answered them."""

from pathlib import Path

import pytest

from sriovdp.kernel import rdma_netlink
from sriovdp.kernel.rtnl import codec

# RDMA_NLDEV_CMD_GET: DEV_INDEX and DEV_NAME, and what comes behind them
DEVICES = [
    bytes.fromhex("08000100030000000b000200") + b"mlx5_2\0\0" + bytes.fromhex("0800030001000000"),
    bytes.fromhex("080001000700000009000200") + b"mine\0\0\0\0",
    bytes.fromhex("0800030001000000"),
]


class Kernel:
    """Answers one question, and notes it."""

    def __init__(self, answers: list[bytes]) -> None:
        self.asked: list[tuple[int, int, str]] = []
        self._answers = answers

    def __call__(self, protocol: int) -> "Kernel":
        """In place of a socket."""
        assert protocol == 20
        return self

    def ask(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        """As Requests has it."""
        assert what
        self.asked.append((kind, flags, body.hex()))
        return self._answers

    def close(self) -> None:
        """Nothing to do."""


@pytest.fixture
def rdma(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A kernel with RDMA."""
    monkeypatch.setattr(rdma_netlink, "_CLASS", tmp_path)
    return monkeypatch


def answer(patch: pytest.MonkeyPatch, *answers: bytes) -> Kernel:
    """Let the kernel answer so."""
    kernel = Kernel(list(answers))
    patch.setattr(rdma_netlink, "Requests", kernel)
    return kernel


def test_mode_is_set(rdma: pytest.MonkeyPatch) -> None:
    """RDMA_NLDEV_CMD_SYS_SET with NETNS_MODE, where 1 is shared."""
    kernel = answer(rdma)
    rdma_netlink.set_exclusive(enabled=True)
    rdma_netlink.set_exclusive(enabled=False)
    assert kernel.asked == [(0x1407, codec.ACK, "0500420000000000"), (0x1407, codec.ACK, "0500420001000000")]


def test_devices(rdma: pytest.MonkeyPatch) -> None:
    """By their indices, which a pod cannot change; what is no device is left out."""
    kernel = answer(rdma, *DEVICES)
    assert rdma_netlink.list_devices() == {3: "mlx5_2", 7: "mine"}
    assert kernel.asked == [(0x1401, codec.DUMP, "")]


def test_changes(rdma: pytest.MonkeyPatch) -> None:
    """The device by its index, and the namespace by an fd of this process."""
    kernel = answer(rdma)
    rdma_netlink.move_device(3, 9, "moving RDMA device mlx5_2")
    rdma_netlink.rename_device(3, "mlx5_2")
    assert kernel.asked == [
        (0x1402, codec.ACK, "08000100030000000800440009000000"),
        (0x1402, codec.ACK, "08000100030000000b000200" + b"mlx5_2\0\0".hex()),
    ]


def test_kernel_without_rdma_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The socket alone would load ib_core."""
    monkeypatch.setattr(rdma_netlink, "_CLASS", tmp_path / "none")
    kernel = answer(monkeypatch)
    assert rdma_netlink.list_devices() == {}
    assert kernel.asked == []
