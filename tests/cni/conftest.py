"""The launcher, built in each way that a test may want."""

from pathlib import Path

import pytest

from tests.cni.launching import IMPATIENT, ROOT, SANITIZED, STATIC, build, is_current


@pytest.fixture(scope="session")
def static_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher as it is installed."""
    built = ROOT / "build/sriov"
    if is_current(built):
        return built
    return build(STATIC, tmp_path_factory.mktemp("static") / "sriov")


@pytest.fixture(scope="session")
def sanitized_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher that stops with exit code 99 and a word on stderr where C is undefined."""
    return build(SANITIZED, tmp_path_factory.mktemp("sanitized") / "sriov")


@pytest.fixture(scope="session")
def impatient_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher with time-outs that a test can wait for."""
    return build(IMPATIENT, tmp_path_factory.mktemp("impatient") / "sriov")


@pytest.fixture(params=["static", "sanitized"])
def launcher(request: pytest.FixtureRequest) -> Path:
    """Both builds."""
    path: Path = request.getfixturevalue(f"{request.param}_launcher")
    return path
