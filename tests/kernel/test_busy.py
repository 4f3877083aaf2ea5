"""A driver that is busy is asked again, in silence at first, and no longer than the caller has patience."""

import errno
import time

import pytest

from sriovdp.errors import KernelError
from sriovdp.kernel.busy import retry_while_busy


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that sleeping moves."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    return clock


@pytest.mark.parametrize(("lasts", "told"), [(0.5, 0), (12.0, 1), (29.0, 1)])
def test_a_wait_that_lasts_is_reported_once(clock: list[float], lasts: float, told: int) -> None:
    """With the device, the reason and the bound."""
    seen: list[str] = []

    def request() -> None:
        if clock[0] < lasts:
            raise KernelError("setting mac of eth0 VF 3 failed", errno=errno.EAGAIN)

    retry_while_busy(request, 30.0, seen.append)
    assert seen == ["setting mac of eth0 VF 3 failed (EAGAIN); trying again for up to 30 s"] * told


def test_the_bound_is_kept_and_said(clock: list[float]) -> None:
    """The kernel's number is kept too. Pauses are as long as the driver takes: the node's RTNL is free in them."""
    starts: list[float] = []

    def request() -> None:
        starts.append(clock[0])
        clock[0] += 0.8
        raise KernelError("it is busy", errno=errno.EBUSY)

    with pytest.raises(KernelError, match=r"it is busy \(EBUSY\) \(tried for 1[01] s\)") as caught:
        retry_while_busy(request, 10.0, lambda _: None)
    assert caught.value.errno == errno.EBUSY
    assert len(starts) <= 8


def test_another_refusal_is_the_answer(clock: list[float]) -> None:
    """At once."""

    def request() -> None:
        raise KernelError("it may not", errno=errno.EPERM)

    with pytest.raises(KernelError):
        retry_while_busy(request, 10.0, lambda _: None)
    assert clock[0] == 0
