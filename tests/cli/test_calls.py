"""How commands are called: the file as argument or option, help, near misses, shell completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sriovdp.cli.main import cli
from tests.recordings.nodes import build

SAMPLE = Path(__file__).parents[2] / "config" / "sample.yaml"
COMMANDS = cli.list_commands(cli.make_context("sriovdp", ["help"]))
READERS = ("validate", "explain", "plan", "apply", "agent")


def run(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded node of two X710."""
    return build("x710", tmp_path_factory.mktemp("nodes") / "x710")


@pytest.mark.parametrize("command", READERS)
def test_every_command_that_reads_a_config_takes_it_as_argument(command: str, tmp_path: Path) -> None:
    """The file is read: its fault is reported, by the argument as by either option."""
    path = tmp_path / "c.yaml"
    path.write_text("resourceLst: []\n")
    for words in ([path], ["--config", path], ["-c", path]):
        shown = run(command, *words)
        assert shown.exit_code == 1, shown.output
        assert f"{path}: 1 fault" in shown.stderr
    twice = run(command, path, "-c", tmp_path / "d.yaml")
    assert twice.exit_code == 2
    assert "Give one, as FILE or with --config" in " ".join(twice.stderr.split())


MAP = """apiVersion: v1
kind: ConfigMap
metadata: {name: pools}
data:
  red: 'resourceList: [{resourceName: a, selectors: {}}]'
  blue: 'resourceLst: []'
"""


@pytest.mark.parametrize("command", READERS)
def test_a_key_chooses_among_the_files_of_a_configmap(command: str, node: Path, tmp_path: Path) -> None:
    """The one with a fault is read when it is named; so is the other."""
    path = tmp_path / "map.yaml"
    path.write_text(MAP)
    assert "did you mean 'resourceList'?" in run(command, path, "--key", "blue").stderr
    none = run(command, path, "--key", "green")
    assert (none.exit_code, "no key 'green'" in none.stderr) == (1, True)
    if command in {"validate", "explain", "plan"}:
        assert run(command, path, "--key", "red", "--sysfs", node).exit_code == 0


@pytest.mark.parametrize("words", [["-"], ["-c", "-"]])
@pytest.mark.parametrize("command", ["validate", "explain", "plan"])
def test_a_dash_is_standard_input(command: str, words: list[str], node: Path) -> None:
    """As a pipe gives it."""
    called = [sys.executable, "-m", "sriovdp.cli.main", command, *words, "--sysfs", str(node)]
    good = subprocess.run(called, input=SAMPLE.read_text(), capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    bad = subprocess.run(called, input="resourceLst: []", capture_output=True, text=True, check=False)
    assert (bad.returncode, "did you mean 'resourceList'?" in bad.stderr) == (1, True)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_explain_finds_the_file_among_the_devices(place: int, node: Path) -> None:
    """Before, between or after PCI addresses, which keep their order."""
    words: list[str | Path] = ["0000:3b:02.2", "3b:02.1"]
    words.insert(place, SAMPLE)
    shown = run("explain", *words, "--sysfs", node)
    assert shown.exit_code == 0, shown.output
    heads = [line.split()[0] for line in shown.stdout.splitlines() if not line.startswith(" ")]
    assert heads == ["0000:3b:02.2", "0000:3b:02.1"]


def test_explain_with_two_files_is_wrong_usage() -> None:
    """Which one is meant cannot be known."""
    assert run("explain", SAMPLE, "./other.yaml").exit_code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example(name: str) -> None:
    """`help NAME` prints what `NAME --help` prints, and one example is in it."""
    shown = run(name, "--help")
    assert (shown.exit_code, shown.stdout.count("Example: sriovdp ")) == (0, 1)
    assert run("help", name).stdout == shown.stdout


def test_help_without_a_command_is_the_list() -> None:
    """The same as `--help`."""
    assert run("help").stdout == run("--help").stdout
    assert run("help", "agnt").exit_code == 2


@pytest.mark.parametrize(
    ("words", "near"),
    [(["valdate"], "'validate'"), (["help", "agnt"], "'agent'"), (["validate", "--ofline"], "'--offline'")],
)
def test_a_slip_gets_the_nearest_word(words: list[str], near: str) -> None:
    """Of commands and of options."""
    shown = run(*words)
    assert shown.exit_code == 2
    assert f"Did you mean {near}?" in shown.stderr


def test_shell_completion_completes_commands_and_options() -> None:
    """What bash asks for; no command is imported to complete its name."""

    def complete(line: str) -> str:
        environment = os.environ | {"_SRIOVDP_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": "1"}
        if len(line.split()) > 2:
            environment["COMP_CWORD"] = "2"
        code = (
            "import sys\nfrom sriovdp.cli.main import main\ntry: main()\nfinally: print('AGENT', 'grpc' in sys.modules)"
        )
        shown = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        return shown.stdout

    assert complete("sriovdp a") == "plain,attachments\nplain,apply\nplain,agent\nAGENT False\n".replace(
        "plain,attachments\nplain,apply", "plain,apply\nplain,attachments"
    )
    assert "plain,--offline" in complete("sriovdp validate --off")
