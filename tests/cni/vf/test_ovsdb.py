"""The client of Open vSwitch's database, with a server that answers in its own way."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cni.vf.ovsdb import Ovsdb, list_set, read_map
from sriovdp.errors import DeviceError

Answer = Callable[[socket.socket, dict[str, Any]], None]


@contextmanager
def serve(path: Path, answer: Answer) -> Iterator[Ovsdb]:
    """A client of a server that answers each request in that way."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            while request := connection.recv(1 << 20):
                answer(connection, json.loads(request))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with Ovsdb(path, timeout=5) as client:
            yield client
    finally:
        listener.close()
        thread.join()


def reply(connection: socket.socket, request: dict[str, Any], **fields: Any) -> None:
    """An answer to a request, without a newline as ovsdb-server has it."""
    connection.sendall(json.dumps({"id": request["id"], "error": None, "result": None, **fields}).encode())


def test_rows_come_back(tmp_path: Path) -> None:
    """A question of the server's comes between, and pieces of an answer may end within a letter."""

    def answer(connection: socket.socket, request: dict[str, Any]) -> None:
        assert (request["method"], request["params"][0]) == ("transact", "Open_vSwitch")
        connection.sendall(b'{"id":"echo","method":"echo","params":[]}')
        text = json.dumps({"id": request["id"], "error": None, "result": [{"rows": [{"name": "br-\u00e4"}]}]})
        for byte in text.encode().replace(b"\\u00e4", "\u00e4".encode()):
            connection.sendall(bytes([byte]))

    with serve(tmp_path / "db", answer) as database:
        assert database.select("Bridge", [], "name") == [{"name": "br-\u00e4"}]
        assert database.select("Bridge", [], "name") == [{"name": "br-\u00e4"}]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"error": "unknown database"}, "failed: unknown database"),
        ({"result": [{"error": "constraint violation", "details": "two rows"}]}, "constraint violation: two rows"),
        ({"result": [{}, {"error": "referential integrity violation"}]}, "referential integrity"),
        ({"result": []}, "lacks results"),
        ({"result": [None]}, "lacks results"),
        ({"result": {}}, "has no results"),
    ],
)
def test_what_the_database_refuses(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    """In its words, with its socket and what to do."""
    with (
        serve(tmp_path / "db", lambda connection, request: reply(connection, request, **fields)) as database,
        pytest.raises(DeviceError, match=said) as caught,
    ):
        database.transact({"op": "select"})
    assert str(tmp_path) in caught.value.message
    assert "start Open vSwitch" in caught.value.hint


@pytest.mark.parametrize(
    ("junk", "said"), [(b"{" * 3000, "closed"), (b"[" * 100_000, "no JSON"), (b'"' + b"x" * (1 << 21), "more than")]
)
def test_an_answer_that_is_none(tmp_path: Path, junk: bytes, said: str) -> None:
    """However long or deep it is."""

    def answer(connection: socket.socket, _: dict[str, Any]) -> None:
        connection.sendall(junk)
        connection.shutdown(socket.SHUT_WR)

    with serve(tmp_path / "db", answer) as database, pytest.raises(DeviceError, match=said):
        database.transact({"op": "select"})


def test_nobody_answers(tmp_path: Path) -> None:
    """A socket without a server, and none at all."""
    with pytest.raises(DeviceError, match=r"connecting .* failed: No such file"):
        Ovsdb(tmp_path / "db")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "db"))
    with pytest.raises(DeviceError, match=r"connecting .* failed: Connection refused"):
        Ovsdb(tmp_path / "db")
    listener.listen()
    with Ovsdb(tmp_path / "db", timeout=0.05) as database, pytest.raises(DeviceError, match=r"a transaction .* failed"):
        database.transact({"op": "select"})
    listener.close()


@pytest.mark.parametrize(
    ("value", "members"), [(["set", []], []), (7, [7]), (["set", [1, 2]], [1, 2]), (["uuid", "x"], [["uuid", "x"]])]
)
def test_sets(value: Any, members: list[Any]) -> None:
    """One member stands without its set."""
    assert list_set(value) == members


@pytest.mark.parametrize("value", [None, [], ["map"], ["map", 1], ["map", [1, ["a"]]], "x", {"a": "b"}])
def test_maps_of_another_shape_are_empty(value: Any) -> None:
    """Nothing of the database is believed by its shape."""
    assert read_map(value) == {}
