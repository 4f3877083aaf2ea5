"""The database of Open vSwitch, by its socket: transactions of RFC 7047 (section 4.1.3), one connection for a few.

Open vSwitch's own Python package (`ovs`) works on a replica of the database, where a pod waits for a single port.
`ovs-vsctl` is not in the agent's container, and is another program's start for each question.
"""

import json
import socket
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from sriovdp.errors import DeviceError

SOCKET = Path("/run/openvswitch/db.sock")

_DATABASE = "Open_vSwitch"
_TIMEOUT = 10.0  # seconds for one answer
_MOST = 1 << 20  # bytes of an answer; a port with all VLANs has 20 KiB
_ROOM = 1 << 16
_HINT = "start Open vSwitch (`systemctl status openvswitch-switch`), and mount /run/openvswitch into the agent"

Row = dict[str, Any]


class Ovsdb(AbstractContextManager["Ovsdb"]):
    """A connection. All calls raise DeviceError with what the database or the socket says."""

    def __init__(self, path: Path | None = None, timeout: float = _TIMEOUT) -> None:
        self._path = path or SOCKET
        self._timeout = timeout
        self._number = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(self._path))
        except OSError as error:
            self._socket.close()
            raise self._fail("connecting", error.strerror or str(error)) from error

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def transact(self, *operations: Row) -> list[Row]:
        """Do all operations or none; gives the result of each."""
        self._number += 1
        request = {"method": "transact", "params": [_DATABASE, *operations], "id": self._number}
        try:
            self._socket.sendall(json.dumps(request).encode())
            answer = self._receive()
        except OSError as error:
            raise self._fail("a transaction", error.strerror or str(error)) from error
        except (ValueError, RecursionError) as error:
            raise self._fail("a transaction", f"its answer is no JSON: {error}") from error
        if answer.get("error"):
            raise self._fail("a transaction", str(answer["error"]))
        results = answer.get("result")
        if not isinstance(results, list):
            raise self._fail("a transaction", "its answer has no results")
        for result in results:
            if isinstance(result, dict) and result.get("error"):
                raise self._fail("a transaction", f"{result['error']}: {result.get('details', '')}")
        if len(results) < len(operations) or not all(isinstance(result, dict) for result in results):
            raise self._fail("a transaction", "its answer lacks results")
        return results

    def select(self, table: str, where: list[list[Any]], *columns: str) -> list[Row]:
        """Rows of a table, with these columns and `_uuid`."""
        found = self.transact({"op": "select", "table": table, "where": where, "columns": ["_uuid", *columns]})
        rows = found[0].get("rows")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def _receive(self) -> Row:
        """The answer to the last request. The database asks now and then whether we live, which is left unanswered."""
        deadline = time.monotonic() + self._timeout
        text, data, decoder = "", b"", json.JSONDecoder()
        while True:
            text = data.decode(errors="replace").lstrip()
            with suppress(json.JSONDecodeError):
                message, end = decoder.raw_decode(text)
                data = text[end:].encode()
                if isinstance(message, dict) and message.get("id") == self._number and "method" not in message:
                    return message
                continue
            if len(data) > _MOST:
                raise OSError(0, f"its answer has more than {_MOST} bytes")
            if time.monotonic() > deadline:
                raise OSError(0, f"no answer within {self._timeout:.0f} seconds")
            part = self._socket.recv(_ROOM)
            if not part:
                raise OSError(0, "it closed the connection")
            data += part

    def _fail(self, what: str, why: str) -> DeviceError:
        return DeviceError(f"{what} with the database of Open vSwitch ({self._path}) failed: {why}", hint=_HINT)


def list_set(value: Any) -> list[Any]:
    """The members of a column that may have none, one or several (RFC 7047, section 5.1, <set>)."""
    if isinstance(value, list) and len(value) == 2 and value[0] == "set" and isinstance(value[1], list):  # noqa: PLR2004
        return list(value[1])
    return [value]


def read_map(value: Any) -> dict[str, str]:
    """A column of names and values (there, <map>)."""
    if not (isinstance(value, list) and len(value) == 2 and value[0] == "map" and isinstance(value[1], list)):  # noqa: PLR2004
        return {}
    pairs = (pair for pair in value[1] if isinstance(pair, list) and len(pair) == 2)  # noqa: PLR2004
    return {str(name): str(text) for name, text in pairs}


def write_set(values: list[Any]) -> list[Any]:
    """What `list_set` reads."""
    return ["set", values]


def write_map(values: dict[str, str]) -> list[Any]:
    """What `read_map` reads."""
    return ["map", [list(pair) for pair in values.items()]]
