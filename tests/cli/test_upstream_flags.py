"""A command line written for sriov-network-device-plugin starts our agent."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sriovdp.agent import Roots
from sriovdp.cli import agent as agent_command
from sriovdp.cli.main import cli
from sriovdp.cli.upstream_flags import translate
from sriovdp.config.values import Config
from sriovdp.live_config import LiveConfig

FILE = "resourceList: [{resourceName: a, selectors: {}}, {resourceName: b, resourcePrefix: my.org, selectors: {}}]"


@pytest.mark.parametrize(
    ("words", "translated", "ignored"),
    [
        ("-config-file=/etc/pcidp/config.json", "--config /etc/pcidp/config.json", ""),
        ("--config-file /etc/pcidp/config.json", "--config /etc/pcidp/config.json", ""),
        ("--config-file", "--config", ""),
        ("-use-cdi --use-cdi=true", "--use-cdi --use-cdi", ""),
        ("-use-cdi=false --use-cdi=F", "", ""),
        ("--resource-prefix=my.org -resource-prefix a.org", "--resource-prefix my.org --resource-prefix a.org", ""),
        ("-logtostderr --alsologtostderr=true", "", ""),
        ("--log-dir=sriovdp --log-level=10", "", "--log-dir --log-level"),
        ("-v 10 -v=10 --v=10 --v 10 file", "file", "-v -v --v --v"),
        ("-log_dir /var/log -stderrthreshold INFO -vmodule=a=2 -log_backtrace_at x:1", "",
         "-log_dir -stderrthreshold -vmodule -log_backtrace_at"),
        ("-v", "--verbose", ""),
        ("-v c.yaml", "--verbose c.yaml", ""),
        ("-c c.yaml --metrics [::1]:9819 --config=x", "-c c.yaml --metrics [::1]:9819 --config=x", ""),
    ],
)  # fmt: skip
def test_flags(words: str, translated: str, ignored: str) -> None:
    """One or two dashes, a value after `=` or as the next word; our own options stay as they are."""
    found, warnings = translate(words.split())
    assert " ".join(found) == translated
    assert [warning.split()[0] for warning in warnings] == ignored.split()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Configs that an agent was started with."""
    configs: list[Config] = []

    class Agent:
        def __init__(self, config: Config, _: Roots, *, live: LiveConfig) -> None:
            assert live.running is config
            configs.append(config)

        async def run(self, stop: asyncio.Event) -> None:
            stop.set()

    def leave_logging(**_: Any) -> None:
        """Its handlers would outlive the test."""

    monkeypatch.setattr(agent_command, "Agent", Agent)
    monkeypatch.setattr(logging, "basicConfig", leave_logging)
    return configs


def test_the_agent_takes_them(started: list[Config], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The prefix is for pools without one, CDI is on, and what is ignored is a warning in the log."""
    path = tmp_path / "config.json"
    path.write_text(FILE)
    words = ["agent", f"-config-file={path}", "-resource-prefix", "example.com", "--use-cdi", "-logtostderr", "-v=10"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    [config] = started
    assert ([pool.resource for pool in config.pools], config.cdi) == (["example.com/a", "my.org/b"], True)
    assert "-v is ignored: the log goes to stderr, and --verbose logs more" in caplog.text


def test_the_file_wins_and_without_flags_all_is_as_before(started: list[Config], tmp_path: Path) -> None:
    """`cdi: false` in the file stays false."""
    path = tmp_path / "c.yaml"
    path.write_text("cdi: false\n" + FILE)
    for words in (["--use-cdi"], []):
        assert CliRunner().invoke(cli, ["agent", str(path), *words]).exit_code == 0
    assert [(config.cdi, config.pools[0].resource) for config in started] == [(False, "intel.com/a")] * 2


def test_an_invalid_prefix_is_a_fault(tmp_path: Path) -> None:
    """With its place, as if it were in the file."""
    (tmp_path / "c.yaml").write_text(FILE)
    done = CliRunner().invoke(cli, ["agent", str(tmp_path / "c.yaml"), "--resource-prefix", "no prefix"])
    assert done.exit_code == 1
    assert "resourceList[0].resourcePrefix" in done.output
