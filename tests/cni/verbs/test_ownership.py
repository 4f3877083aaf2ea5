"""Which VF a pod may have by the kubelet."""

import pytest

from cni.policy import Allocation, Policy
from cni.protocol.spec import DEVICE_IN_USE
from cni.verbs.ownership import Owner, ask_nobody, check_owner
from sriovdp.errors import CniError
from sriovdp.model import find_pod

VF = "0000:01:10.2"
FREE, OFFERED = Owner(), Owner("", is_offered=True)
MINE, OTHERS = Owner("default/web", is_offered=True), Owner("default/db", is_offered=True)


def ask(answers: list[Owner | None], allocation: Allocation, *, is_named: bool = True, has_pf: bool = True) -> str:
    """Why the pod default/web does not get the VF, empty when it does; the answers must all be asked for."""
    left = list(answers)

    def answer(device: str, *, fresh: bool) -> Owner | None:
        assert device == VF
        assert fresh == (len(left) < len(answers))
        return left.pop(0)

    try:
        check_owner(Policy(allocation=allocation), answer, VF, "default/web", is_named=is_named, has_pf=has_pf)
    except CniError as error:
        refused = error.message if error.code == DEVICE_IN_USE else f"code {error.code}"
    else:
        refused = ""
    assert not left
    return refused


@pytest.mark.parametrize(
    ("answers", "allocation", "reason"),
    [
        ([MINE], "when-known", ""),
        ([OTHERS, OTHERS], "when-known", "gave it to pod default/db"),
        ([OTHERS, MINE], "when-known", ""),
        ([OFFERED, MINE], "when-known", ""),
        ([OFFERED, OFFERED], "when-known", "gave it to no pod"),
        ([FREE], "when-known", ""),
        ([None], "when-known", ""),
        ([OTHERS, None], "when-known", ""),
        ([MINE], "required", ""),
        ([None, MINE], "required", ""),
        ([None, None], "required", "does not say"),
        ([FREE, FREE], "required", "gave it to no pod"),
        ([], "ignored", ""),
    ],
)
def test_only_the_pod_that_the_kubelet_gave_it_to(
    answers: list[Owner | None], allocation: Allocation, reason: str
) -> None:
    """A refusal is asked for again first: the pod may just have been admitted."""
    refused = ask(answers, allocation)
    assert (reason in refused) if reason else not refused


def test_a_vf_that_we_choose_needs_no_pod() -> None:
    """Networks of 2017 know no kubelet; but what it gave to another pod they do not get."""
    assert not ask([OFFERED], "when-known", is_named=False)
    assert "default/db" in ask([OTHERS, OTHERS], "when-known", is_named=False)


def test_a_pod_is_known_by_cni_args() -> None:
    """Another runtime than a kubelet's names none; without an agent nothing is known."""
    assert find_pod("IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b") == "a/b"
    assert find_pod("K8S_POD_NAME=b") == "default/b"
    assert find_pod("") == ""
    assert ask_nobody(VF, fresh=True) is None


@pytest.mark.parametrize(
    ("answers", "allocation", "reason"),
    [
        ([MINE], "when-known", ""),
        ([FREE, FREE], "when-known", "the kubelet gave it to no pod"),
        ([None, None], "when-known", "the kubelet does not say"),
        ([], "ignored", ""),
    ],
)
def test_a_function_without_a_pf_is_only_for_the_pod_that_the_kubelet_gave_it_to(
    answers: list[Owner | None], allocation: Allocation, reason: str
) -> None:
    """It may be a plain NIC of this host, which a network could name."""
    assert reason in (found := ask(answers, allocation, has_pf=False))
    assert bool(reason) == bool(found)
