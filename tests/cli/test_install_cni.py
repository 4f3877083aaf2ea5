"""`sriovdp install-cni`: the launcher in the runtime's folder, whatever is there and runs it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sriovdp.cli.main import cli

OLD, NEW = ('#!/bin/sh\necho \'{"supportedVersions": ["1.0.0"]}\' #' + mark + "\n" for mark in ("old", "new"))


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node with Multus, and without a launcher."""
    (tmp_path / "net.d").mkdir()
    (tmp_path / "net.d/00-multus.conf").write_text(json.dumps({"type": "multus", "name": "m"}))
    return tmp_path


def install(node: Path, launcher: Path | None) -> Result:
    """Run the command on the node."""
    places = {"--bin-dir": "bin", "--conf-dir": "net.d", "--containerd-config": "config.toml"}
    options = [f"{option}={node / name}" for option, name in places.items()]
    named = [f"--launcher={launcher}"] if launcher else []
    return CliRunner().invoke(cli, ["install-cni", *options, *named])


def script(folder: Path, text: str, name: str = "launcher") -> Path:
    """A launcher as a script."""
    (folder / name).write_text(text)
    return folder / name


def test_built_launcher_is_found_and_works(node: Path) -> None:
    """Without further words the command installs the one that `make setup` built."""
    result = install(node, None)

    assert result.exit_code == 0
    assert result.output == f"{node / 'bin/sriov'}: installed\n{node / 'bin/ib-sriov'}: installed\n"
    for name in ("sriov", "ib-sriov"):
        environment = {"CNI_COMMAND": "VERSION"}
        answer = subprocess.run([node / "bin" / name], env=environment, stdin=-3, capture_output=True, check=True)
        assert "1.1.0" in json.loads(answer.stdout)["supportedVersions"]
    assert sorted(path.name for path in (node / "bin").iterdir()) == ["ib-sriov", "sriov"]


def test_previous_one_is_kept(node: Path) -> None:
    """The older executable is still there under another name, and is not lost by installing the same one twice."""
    install(node, script(node, OLD))
    install(node, script(node, NEW))
    result = install(node, script(node, NEW))

    assert "already installed, nothing changed" in result.output
    assert (node / "bin/sriov").read_text() == NEW
    assert (node / "bin/sriov.previous").read_text() == OLD
    assert (node / "bin/sriov").stat().st_mode & 0o777 == 0o755
    names = ["ib-sriov", "ib-sriov.previous", "sriov", "sriov.previous"]
    assert sorted(path.name for path in (node / "bin").iterdir()) == names


def test_running_one_is_replaced(node: Path) -> None:
    """A text file that is busy cannot be written to, but its name can be given to another; who runs goes on."""
    (node / "bin").mkdir()
    shutil.copy(shutil.which("sleep") or "/bin/sleep", node / "bin/sriov")
    with subprocess.Popen([node / "bin/sriov", "60"]) as running:
        try:
            with pytest.raises(OSError, match="Text file busy"):
                (node / "bin/sriov").write_text("x")
            result = install(node, script(node, NEW))
            assert running.poll() is None
        finally:
            running.kill()

    assert result.exit_code == 0
    assert (node / "bin/sriov").read_text() == NEW


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\x7fELF for another machine", "does not run in"),
        ("#!/bin/sh\nexit 3\n", "is not a CNI plugin: exit code 3"),
        ("#!/bin/sh\necho hello\n", "does not run in"),
    ],
    ids=["architecture", "exit code", "answer"],
)
def test_what_does_not_work_is_not_installed(node: Path, text: str, reason: str) -> None:
    """The working one stays, and nothing is left beside it."""
    install(node, script(node, OLD))

    result = install(node, script(node, text))

    assert result.exit_code == 1
    assert reason in result.output
    left = sorted((path.name, path.read_text()) for path in (node / "bin").iterdir())
    assert left == [("ib-sriov", OLD), ("sriov", OLD)]


def test_place_that_is_taken_is_reported(node: Path) -> None:
    """A folder of that name is not removed; the message names the place."""
    (node / "bin/sriov").mkdir(parents=True)

    result = install(node, script(node, NEW))

    assert result.exit_code == 1
    assert f"installing the CNI launcher as {node / 'bin/sriov'} failed" in result.output


def test_missing_launcher_is_reported(node: Path) -> None:
    """A path that is none."""
    result = install(node, node / "nowhere")

    assert result.exit_code == 1
    assert "nowhere" in result.output


@pytest.mark.parametrize(
    "conf",
    [
        {"type": "multus-shim", "name": "m"},
        {"name": "chain", "plugins": [{"type": "bridge"}, {"type": "sriov"}]},
    ],
    ids=["thick Multus", "conflist"],
)
def test_runtime_that_calls_it_brings_no_warning(node: Path, conf: object) -> None:
    """A delegating plugin or our own type, in a plain configuration or a list; a broken one beside it is skipped."""
    (node / "net.d/00-multus.conf").write_text("{broken")
    (node / "net.d/10-net.conflist").write_text(json.dumps(conf))

    assert "warning" not in install(node, script(node, NEW)).output


def test_runtime_that_would_not_find_it_is_reported(node: Path) -> None:
    """No configuration that calls it, Multus with another folder, containerd with another folder."""
    (node / "net.d/00-multus.conf").write_text(json.dumps({"type": "bridge", "name": "b"}))
    alone = install(node, script(node, NEW))
    (node / "net.d/00-multus.conf").write_text(
        json.dumps({"type": "multus", "name": "m", "binDir": "/usr/libexec/cni"})
    )
    (node / "config.toml").write_text('[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/usr/lib/cni"\n')
    elsewhere = install(node, script(node, NEW))
    (node / "config.toml").write_text(
        f'version = 3\n[plugins."io.containerd.cri.v1.runtime".cni]\nbin_dirs = ["/usr/lib/cni", "{node / "bin"}"]\n'
    )
    right = install(node, script(node, NEW))

    assert alone.exit_code == elsewhere.exit_code == 0
    assert f"no network in {node / 'net.d'} calls sriov" in alone.output
    assert "multus in" in elsewhere.output
    assert "/usr/libexec/cni" in elsewhere.output
    assert "containerd looks for plugins in /usr/lib/cni" in elsewhere.output
    assert "containerd" not in right.output
