"""Delegation to IPAM plugins: found in CNI_PATH, run with the request's environment and its whole configuration.

CNI specification 1.1.0, section "Plugin Delegation".
"""

import errno
import json
import logging
import re
from threading import Event
from typing import Any, Self

from cni.ipam.process import NOT_EXECUTED, PluginKilledError, PluginProcess, date_executable, find_executable
from cni.ipam.turns import Turns
from cni.protocol.keys import is_ipam_plugin
from cni.protocol.spec import (
    DECODING_FAILURE,
    INCOMPATIBLE_VERSION,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    IPAM_FAILURE,
    TRY_AGAIN,
    UNKNOWN_CONTAINER,
    UNSUPPORTED_FIELD,
    Result,
    parse_result,
)
from cni.protocol.wire import DELEGATED
from cni.slots import waiting
from sriovdp.errors import BusyError, CniError
from sriovdp.state.journal import Attachment

logger = logging.getLogger(__name__)

# these never look at the interface, so they may run while it is being made; any other (dhcp) finds it up
_BLIND_PLUGINS = frozenset({"host-local", "static", "whereabouts"})
_SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # for plugins that are scripts


_REJECTIONS = frozenset(
    {INCOMPATIBLE_VERSION, UNSUPPORTED_FIELD, INVALID_ENVIRONMENT, DECODING_FAILURE, INVALID_CONFIG}
)


class IpamError(CniError):
    """The IPAM plugin is missing, failed, or printed no valid result."""

    @property
    def is_final(self) -> bool:
        """Whether the same call fails again, as the plugin rejects what it is asked."""
        return self.code in _REJECTIONS


class MissingPluginError(IpamError):
    """There is no such plugin in CNI_PATH, or what is there is no program of this machine."""

    @property
    def is_final(self) -> bool:
        """The same call fails until the plugin is installed."""
        return True


class UnusablePluginError(MissingPluginError):
    """`ipam.type` names no IPAM plugin. ADD refuses it, so nothing can have been reserved."""


_INSTALL = "install it there (Debian: containernetworking-plugins), or correct ipam.type"
# execve(2) for a file of another machine, without its interpreter, or on a mount with noexec
_NO_PROGRAM = {errno.ENOEXEC, errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP, errno.ELIBBAD}

_turns = Turns()
_outdated: set[tuple[str, int]] = set()  # executables, with the date of the file, that refused specification 1.1.0


class IpamCall:
    """One run of an IPAM plugin, started at once so that other work can go on beside it.

    Once `cancelled` is set it has to end soon (`cni.ipam.process.GRACE`).
    """

    def __init__(self, plugin: str, command: str, attachment: Attachment, cancelled: Event | None = None) -> None:
        """Start the plugin for a verb. Raises MissingPluginError, and IpamError when it cannot be executed."""
        self._plugin = plugin
        self._caller = _name_caller(attachment)
        self._executable = _find_plugin(plugin, attachment.path)
        self._environment = _environment(command, attachment)
        self._config = dict(attachment.config)
        self._cancelled = cancelled
        self._build = (self._executable, date_executable(self._executable))
        if self._config.get("cniVersion") == "1.1.0" and self._build in _outdated:
            self._config["cniVersion"] = "1.0.0"
        self._has_turn = False
        self._take_turn()
        try:
            self._process = self._start()
        except BaseException:  # a turn that is kept is one less for every network
            self._give_turn_back()
            raise

    def _take_turn(self) -> None:
        try:
            _turns.take(self._plugin, self._cancelled)
        except BusyError as error:
            raise IpamError(TRY_AGAIN, error.message, hint=error.hint) from error
        self._has_turn = True

    def _give_turn_back(self) -> None:
        if self._has_turn:
            self._has_turn = False
            _turns.give_back(self._plugin)

    def _start(self) -> PluginProcess:
        try:
            return PluginProcess(self._executable, self._environment, json.dumps(self._config).encode())
        except OSError as error:
            said = f"executing IPAM plugin {self._executable} failed: {error.strerror}"
            if error.errno in _NO_PROGRAM:
                raise MissingPluginError(IPAM_FAILURE, said, hint=_INSTALL) from error
            raise IpamError(IPAM_FAILURE, said) from error

    def finish(self) -> Result:
        """Wait for the plugin and read its result. Raises IpamError with the plugin's own code and message.

        A plugin from before specification 1.1.0 (as Debian 12 has them) is asked again in 1.0.0: both versions ask IPAM
        plugins the same. It is asked so at once the next time.
        """
        try:
            try:
                return self._finish()
            except IpamError as error:
                if error.code != INCOMPATIBLE_VERSION or self._config.get("cniVersion") != "1.1.0":
                    raise
            _outdated.add(self._build)
            self._config["cniVersion"] = "1.0.0"
            self._process = self._start()
            return self._finish()
        finally:
            self._give_turn_back()

    def _finish(self) -> Result:
        try:
            with waiting():
                code, stdout, stderr = self._process.wait(self._cancelled)
        except PluginKilledError as error:
            raise IpamError(IPAM_FAILURE, f"IPAM plugin {self._plugin} {error}") from None
        document = _decode(stdout)
        if code != 0:
            raise self._read_error(code, document, stderr)
        if stderr.strip():
            text = stderr.decode(errors="replace").strip()
            logger.info("%s: IPAM plugin %s printed: %s", self._caller, self._plugin, text)
        try:
            return parse_result(document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IpamError(IPAM_FAILURE, f"IPAM plugin {self._plugin} printed no valid result: {error}") from error

    def stop(self) -> bool:
        """End the plugin, within `cni.ipam.process.GRACE`; gives whether it succeeded."""
        try:
            return self._process.stop()
        finally:
            self._give_turn_back()

    @property
    def is_running(self) -> bool:
        """Whether the plugin has not ended yet."""
        return self._process.is_running

    def _read_error(self, code: int, document: Any, stderr: bytes) -> IpamError:
        if isinstance(document, dict) and isinstance(document.get("code"), int):
            text = " ".join(str(document[key]) for key in ("msg", "details") if document.get(key))
            return IpamError(document["code"], f"IPAM plugin {self._plugin}: {text}")
        said = stderr.decode(errors="replace").strip() or "nothing on stderr"
        if said.startswith(NOT_EXECUTED):
            return MissingPluginError(IPAM_FAILURE, f"IPAM plugin {self._plugin}: {said}", hint=_INSTALL)
        return IpamError(IPAM_FAILURE, f"IPAM plugin {self._plugin} ended with exit code {code}: {said}")


class Addresses:
    """The addresses of one attachment under way: asked for as early as the plugin can do with, and awaited once.

    The plugin's ADD runs beside the `with` block, if the configuration has one; it does not outlive the block. `given`
    says whether the plugin answered that it succeeded: if not, nothing is owed to it.
    """

    def __init__(self, attachment: Attachment, cancelled: Event | None = None) -> None:
        self.given = False
        self._attachment = attachment
        self._cancelled = cancelled
        self._plugin: str | None = None
        self._call: IpamCall | None = None

    def __enter__(self) -> Self:
        """Start the plugin, if the configuration has one that needs no interface. Raises IpamError."""
        self._plugin = _plugin_of(self._attachment)
        if self._plugin in _BLIND_PLUGINS:
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the plugin."""
        if self._call:
            self.given |= self._call.stop()

    def _start(self) -> None:
        if self._plugin:
            self._call = IpamCall(self._plugin, "ADD", self._attachment, self._cancelled)

    def finish(self) -> Result | None:
        """What the plugin gives; None without one. Now the interface is up. Raises IpamError, also without address."""
        if self._call is None:
            self._start()
        if self._call is None:
            return None
        result = self._call.finish()
        self.given = True
        if not result.ips:
            raise IpamError(IPAM_FAILURE, f"IPAM plugin {self._plugin} gave no address")
        return result


class Deletion:
    """The plugin's DEL for one attachment, if the configuration has one, beside other work where the plugin can."""

    def __init__(self, attachment: Attachment) -> None:
        """Start it. One that may look at the interface is done now, while that is where it was."""
        self._call: IpamCall | None = None
        self._error: IpamError | None = None
        self._caller = attachment.caller
        plugin = None
        try:
            plugin = _plugin_of(attachment)
            if plugin:
                self._call = IpamCall(plugin, "DEL", attachment)
        except UnusablePluginError as error:
            logger.warning("%s: no address was reserved: %s", attachment.caller, error)
        except Exception as error:  # noqa: BLE001 - whatever a configuration holds, the VF is released
            self._error = _as_ipam_error(error, self._caller)
        if plugin not in _BLIND_PLUGINS:
            self.finish()

    @property
    def is_running(self) -> bool:
        """Whether the plugin has not ended yet."""
        return self._call is not None and self._call.is_running

    def finish(self) -> IpamError | None:
        """Wait for it; gives why it failed, None if it did not."""
        call, self._call = self._call, None
        try:
            if call:
                call.finish()
        except Exception as error:  # noqa: BLE001 - as above
            self._error = _as_ipam_error(error, self._caller)
        return self._error


def _as_ipam_error(error: Exception, caller: str) -> IpamError:
    if isinstance(error, IpamError):
        return error
    logger.error("%s: calling the IPAM plugin failed", caller, exc_info=error)
    return IpamError(IPAM_FAILURE, f"calling the IPAM plugin failed: {error!r}")


def delete_addresses(attachment: Attachment) -> None:
    """Run the plugin's DEL, if the configuration has one. Raises IpamError when it fails."""
    if plugin := _plugin_of(attachment):
        IpamCall(plugin, "DEL", attachment).finish()


def check_addresses(attachment: Attachment) -> None:
    """Run the plugin's CHECK, if the configuration has one. Raises IpamError when it finds a fault."""
    _ask_what_may_be_missing("CHECK", attachment)


def ask_status(attachment: Attachment) -> None:
    """Run the plugin's STATUS, if the configuration has one. Raises IpamError when it cannot serve ADD."""
    _ask_what_may_be_missing("STATUS", attachment)


def collect_garbage(attachment: Attachment) -> None:
    """Run the plugin's GC, if the configuration has one. Raises IpamError when it fails."""
    _ask_what_may_be_missing("GC", attachment)


def _ask_what_may_be_missing(command: str, attachment: Attachment) -> None:
    """Run a verb that not every plugin has: whereabouts says so in words, plugins from before 1.1.0 by their code."""
    plugin = _plugin_of(attachment)
    if not plugin:
        return
    try:
        IpamCall(plugin, command, attachment).finish()
    except MissingPluginError:
        raise
    except IpamError as error:
        unknown = error.code in {INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT}
        # a plugin that knows no verb without a container misses that first
        unknown = unknown or (error.code == UNKNOWN_CONTAINER and command != "CHECK")
        if not unknown and not re.search("not (implemented|supported)|unimplemented", str(error), re.IGNORECASE):
            raise
        logger.info("%s: IPAM plugin %s has no %s: %s", _name_caller(attachment), plugin, command, error)


def _name_caller(attachment: Attachment) -> str:
    return attachment.caller or f"network {attachment.network}"


def _plugin_of(attachment: Attachment) -> str | None:
    """The plugin's name, None without one. Raises UnusablePluginError: the journal is trusted no more than stdin."""
    ipam = attachment.config.get("ipam") or {}
    plugin = ipam.get("type") if isinstance(ipam, dict) else ipam
    if not plugin:
        return None
    if not is_ipam_plugin(plugin, attachment.config.get("type")):
        raise UnusablePluginError(
            INVALID_CONFIG, f"ipam.type {plugin!r} is refused", hint="set it to the name of an IPAM plugin in CNI_PATH"
        )
    return str(plugin)


def _environment(command: str, attachment: Attachment) -> dict[str, str]:
    named = {"CNI_CONTAINERID": attachment.container_id, "CNI_NETNS": attachment.netns, "CNI_IFNAME": attachment.ifname}
    return {
        "CNI_COMMAND": command,
        **(named if attachment.container_id else {}),
        "CNI_ARGS": attachment.args,
        "CNI_PATH": attachment.path,
        "PATH": _SEARCH_PATH,
        DELEGATED: "1",
    }


def _find_plugin(plugin: str, path: str) -> str:
    if found := find_executable(plugin, path):
        return found
    raise MissingPluginError(
        IPAM_FAILURE,
        f"there is no IPAM plugin {plugin!r} in CNI_PATH {path!r}",
        hint=_INSTALL,
    )


def _decode(stdout: bytes) -> Any:
    try:
        return json.loads(stdout) if stdout.strip() else None
    except (ValueError, RecursionError):
        return stdout.decode(errors="replace")
