"""Headers of the lab's kernel, and the software NIC that is built against them."""

from pathlib import Path

import pytest

from setup import headers, vnic
from setup.kernel import Kernel
from setup.steps import SetupError

_VERSION = "6.12.1+deb12-amd64"


def test_headers_that_apt_no_longer_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error says which folder to remove, and nothing half-made stays in the cache."""

    def refuse(folder: Path, *names: str) -> None:
        raise SetupError(f"no {names[0]}")

    monkeypatch.setattr(headers, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(headers, "unpack", refuse)
    with pytest.raises(SetupError, match=f"remove {tmp_path}/kernel-") as caught:
        headers.prepare_headers(_VERSION)
    assert f"no linux-headers-{_VERSION}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_headers_lead_to_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their Makefile names the folder in the cache, not the one they were unpacked in."""

    def unpack(folder: Path, *names: str) -> None:
        made = folder / f"usr/src/linux-headers-{_VERSION}"
        made.mkdir(parents=True)
        (made / "Makefile").write_text("include /usr/src/linux-headers-6.12.1+deb12-common/Makefile\n")

    monkeypatch.setattr(headers, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(headers, "unpack", unpack)
    folder = headers.prepare_headers(_VERSION)
    target = tmp_path / f"headers-{_VERSION}/usr/src"
    assert folder == target / f"linux-headers-{_VERSION}"
    assert (folder / "Makefile").read_text() == f"include {target}/linux-headers-6.12.1+deb12-common/Makefile\n"
    assert headers.prepare_headers(_VERSION) == folder


def test_a_changed_source_is_built_into_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that no guest gets modules of other sources, or of another kernel."""
    (tmp_path / "Kbuild").write_text("obj-m := vnic.o\n")
    monkeypatch.setattr(vnic, "_SOURCE", tmp_path)
    monkeypatch.setattr(vnic, "find_kernel", lambda: Kernel(tmp_path / f"kernel-{_VERSION}"))
    before = vnic.vnic_folder()
    assert _VERSION in before.name
    (tmp_path / "main.c").write_text("")
    assert vnic.vnic_folder() != before


def test_without_a_kernel_there_is_no_software_nic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to run."""
    monkeypatch.setattr(vnic, "find_kernel", lambda: None)
    with pytest.raises(SetupError, match="make setup"):
        vnic.prepare_vnic()
