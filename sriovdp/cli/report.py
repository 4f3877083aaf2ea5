"""`sriovdp report`: all that support needs of a node in one file, in which nobody is named."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from sriovdp.cli.doctor import prepare, root_option, write
from sriovdp.cli.options import config_option, key_option, kubelet_option, node_options, run_option, state_option
from sriovdp.config.nodes import NodeIdentity
from sriovdp.doctor.bundle import LOG_MOST, Bundle, list_names, read_tail
from sriovdp.doctor.disguise import Disguise
from sriovdp.doctor.examined import Examined, Folders
from sriovdp.doctor.verdict import describe, examine
from sriovdp.errors import SriovdpError
from sriovdp.node.recording import Pseudonyms

_PATH = click.Path(path_type=Path, dir_okay=False)
_JOURNALCTL = ("journalctl", "-u", "sriovdp*", "-n", "4000", "--no-pager", "-o", "short-iso", "--no-hostname")
_JOURNALCTL_TIMEOUT = 20.0  # seconds
_POD_LOGS = Path("/var/log/pods")


@click.command(epilog="Example: sriovdp report node7.tar.gz")
@click.argument("target", required=False, type=_PATH, metavar="[FILE]")
@config_option
@key_option
@root_option
@click.option(
    "--log", "log", type=_PATH, metavar="FILE", help="The agent's log; - is standard input.  [default: journald's]"
)
@state_option
@run_option
@kubelet_option
@node_options
def command(  # noqa: PLR0913 (one for each option)
    target: Path | None,
    config_path: Path,
    root: Path,
    *,
    key: str,
    log: Path | None,
    state: Path,
    run: Path,
    kubelet: Path,
    node_name: str | None,
    node_labels: dict[str, str] | None,
) -> None:
    """Save config, status, doctor's findings, a recording, the log's end and the journal of this node in a new FILE.

    It is a .tar.gz that only its owner can read. Names of nodes, pods and users, MACs and IP addresses are replaced;
    docs/doctor.md lists what is. Look into it before you send it. Changes nothing else.
    """
    examined = prepare(root, config_path, key, node_name, node_labels, Folders(str(state), str(run), str(kubelet)))
    verdicts = examine(examined)
    identity = _name_node(examined, node_name, node_labels)
    macs = Pseudonyms()
    config = examined.config.config if examined.config else None
    disguise = Disguise(list_names(examined, identity.name, config), macs)
    chosen = target or Path(f"sriovdp-report-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz")
    with tempfile.TemporaryDirectory(prefix="sriovdp-report-") as folder:
        bundle = Bundle(examined, disguise, macs, Path(folder))
        bundle.add("doctor.txt", "\n".join(write(verdicts, show_all=True)) + "\n")
        bundle.add("doctor.json", json.dumps(describe(verdicts), indent=2) + "\n")
        bundle.add("status.txt", "\n".join(examined.view.answers.get("agent", ["no agent runs"])) + "\n")
        bundle.add("log.txt", _read_log(log, bundle))
        bundle.add_node()
        size = bundle.pack(chosen)
    click.echo(f"{chosen}: {size >> 10} KiB. Names and addresses are replaced; look into it before you send it.")


def _name_node(examined: Examined, name: str | None, labels: dict[str, str] | None) -> NodeIdentity:
    """Which node it is, remembered with what was read of it."""
    identity = NodeIdentity.find(name, labels)
    listed = [f"{key}={value}" for key, value in (identity.labels or {}).items()]
    examined.view.answers.setdefault("node", [identity.name, *listed])
    return identity


def _read_log(path: Path | None, bundle: Bundle) -> str:
    if path == Path("-"):
        return sys.stdin.buffer.read()[-LOG_MOST:].decode(errors="replace")
    try:
        return read_tail(path) if path else "\n".join(_find_log())
    except SriovdpError as error:
        if path:
            raise
        bundle.missing.append(f"the log: {error}")
        return ""


def _find_log() -> Iterator[str]:
    """The log of the service, else of the pods that this node had."""
    try:
        done = subprocess.run(_JOURNALCTL, capture_output=True, timeout=_JOURNALCTL_TIMEOUT, check=False)
        text = done.stdout[-LOG_MOST:].decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    if text.strip() and "-- No entries --" not in text:
        yield text
        return
    logs = sorted(_POD_LOGS.glob("*_sriovdp-*/*/*.log"), key=lambda path: path.lstat().st_mtime)
    if not logs:
        raise SriovdpError("journald and /var/log/pods have none of sriovdp", hint="give it with --log")
    yield read_tail(logs[-1])
