"""The frames between launcher and agent."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.protocol.wire import (
    ENVIRONMENT_MAX,
    HEADER_SIZE,
    STDIN_MAX,
    STDOUT_MAX,
    Reply,
    Request,
    Spooled,
    WireError,
    decode_body,
    decode_header,
    decode_reply,
    decode_spooled,
    encode_reply,
    encode_request,
    encode_spooled,
)

REQUEST = Request(
    "ADD", "0123abcd", "/run/netns/a", "net1", "K8S_POD_NAME=a;MAC=02:00:00:00:00:01", "/opt/cni/bin", b"{}"
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)


def decode(frame: bytes) -> Request:
    """Read a whole request as a server does."""
    return decode_body(decode_header(frame[:HEADER_SIZE]), frame[HEADER_SIZE:])


def frame(environment: bytes, stdin: bytes = b"{}") -> bytes:
    """A request with an environment that `encode_request` would not write."""
    return struct.pack(">4sIIII", b"SRIO", 1, 0, len(environment), len(stdin)) + environment + stdin


@given(st.builds(Request, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, st.binary(max_size=2000), st.integers(0, 4095)))
def test_request_comes_back_as_it_was(request: Request) -> None:
    """Whatever the runtime gives is what the verbs get."""
    assert decode(encode_request(request)) == request


@given(st.builds(Reply, st.integers(0, 255), st.binary(max_size=2000)))
def test_reply_comes_back_as_it_was(reply: Reply) -> None:
    """Exit code and stdout survive the way back."""
    assert decode_reply(encode_reply(reply)) == reply


@given(st.binary(max_size=64), st.binary(max_size=200))
def test_no_bytes_raise_anything_but_wire_error(start: bytes, body: bytes) -> None:
    """A hostile or broken peer cannot raise what the server does not expect."""
    for data in (start, encode_request(REQUEST)[:HEADER_SIZE], frame(body)[:HEADER_SIZE]):
        try:
            decode_body(decode_header(data), body)
        except WireError:
            continue


def test_request_has_the_documented_layout() -> None:
    """The bytes are those that the launcher in C writes."""
    request = Request("DEL", "a", "", "", "", "", b"{}", 2)

    header = b"SRIO" + bytes([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 34, 0, 0, 0, 2])
    assert encode_request(request) == header + b"CNI_COMMAND=DEL\0CNI_CONTAINERID=a\0" + b"{}"


def test_unset_and_unknown_variables() -> None:
    """An unset variable is empty, and one that no verb knows is not an error."""
    request = decode(frame(b"CNI_COMMAND=GC\0CNI_NETNS_OVERRIDE=1\0"))

    assert request == Request("GC", "", "", "", "", "", b"{}")


def test_value_keeps_equal_signs_and_emptiness() -> None:
    """Only the first equal sign parts name and value."""
    request = decode(frame(b"CNI_ARGS=A=1;B=2\0CNI_PATH=\0"))

    assert (request.args, request.path) == ("A=1;B=2", "")


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (b"CNI_COMMAND=ADD", "does not end with a NUL"),
        (b"CNI_COMMAND\0", "no CNI_\\* variable"),
        (b"PATH=/bin\0", "no CNI_\\* variable"),
        (b"\0", "no CNI_\\* variable"),
        (b"CNI_NETNS=/a\0CNI_NETNS=/b\0", "CNI_NETNS is in the environment twice"),
        (b"CNI_ARGS=\xff\0", "not UTF-8"),
    ],
)
def test_malformed_environment(environment: bytes, reason: str) -> None:
    """Each fault of the environment is reported."""
    with pytest.raises(WireError, match=reason):
        decode(frame(environment))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "0 bytes, not 20"),
        (b"SRIO", "4 bytes, not 20"),
        (struct.pack(">4sIIII", b"HTTP", 1, 0, 0, 0), "starts with b'HTTP'"),
        (
            struct.pack(">4sIIII", b"SRIO", 2, 0, 0, 0),
            "launcher speaks protocol version 2, the sriovdp agent 1; the agent is the older one",
        ),
        (struct.pack(">4sIIII", b"SRIO", 0, 0, 0, 0), "the launcher is the older one: run `sriovdp install-cni`"),
        (struct.pack(">4sIIII", b"SRIO", 1, 4096, 0, 0), "errno of 4096"),
        (struct.pack(">4sIIII", b"SRIO", 1, 0, ENVIRONMENT_MAX + 1, 0), "environment of 65537"),
        (struct.pack(">4sIIII", b"SRIO", 1, 0, 0, STDIN_MAX + 1), "stdin of 1048577"),
    ],
)
def test_malformed_header(header: bytes, reason: str) -> None:
    """Each fault of the header is reported before anything is read on its word."""
    with pytest.raises(WireError, match=reason):
        decode_header(header)


def test_sizes_at_the_bounds() -> None:
    """The largest environment, stdin and stdout pass."""
    path = "x" * (ENVIRONMENT_MAX - len("CNI_PATH=\0"))
    request = Request("", "", "", "", "", path, b"s" * STDIN_MAX)
    reply = Reply(255, b"r" * STDOUT_MAX)

    assert decode(encode_request(request)) == request
    assert decode_reply(encode_reply(reply)) == reply


@pytest.mark.parametrize(
    "request_",
    [
        Request("A\0DD", "", "", "", "", "", b""),
        Request("", "", "", "", "", "x" * (ENVIRONMENT_MAX - len("CNI_PATH=\0") + 1), b""),
        Request("", "", "", "", "", "", b"s" * (STDIN_MAX + 1)),
        Request("", "", "", "", "", "", b"", -1),
    ],
    ids=["NUL", "environment", "stdin", "errno"],
)
def test_request_out_of_bounds_is_not_sent(request_: Request) -> None:
    """What the other side would refuse is an error on this side."""
    with pytest.raises(WireError):
        encode_request(request_)


@pytest.mark.parametrize(
    "reply", [Reply(256, b""), Reply(-1, b""), Reply(0, b"r" * (STDOUT_MAX + 1))], ids=["large", "negative", "stdout"]
)
def test_reply_out_of_bounds_is_not_sent(reply: Reply) -> None:
    """An exit code that exit(3) would cut, or too large a stdout, is an error here."""
    with pytest.raises(WireError):
        encode_reply(reply)


def test_body_and_stdout_must_be_whole() -> None:
    """A cut frame is not taken for a shorter one."""
    request = encode_request(REQUEST)
    reply = encode_reply(Reply(0, b"result"))

    with pytest.raises(WireError, match="its header says"):
        decode_body(decode_header(request[:HEADER_SIZE]), request[HEADER_SIZE:-1])
    with pytest.raises(WireError, match="5 bytes of stdout, its header says 6"):
        decode_reply(reply[:-1])


@pytest.mark.parametrize("boot", ["0b0c7e9a-2f53-4c5b-8d4f-0123456789ab", ""])
def test_spooled_request_comes_back_as_it_was(boot: str) -> None:
    """With the identity of its network namespace, or without."""
    spooled = Spooled(REQUEST, 4, 4026532000, boot)

    assert decode_spooled(encode_spooled(spooled)) == spooled


@given(st.binary(max_size=300), st.integers(0, 400))
def test_no_file_raises_anything_but_wire_error(data: bytes, cut: int) -> None:
    """Neither rubbish in the spool nor a file cut short."""
    whole = encode_spooled(Spooled(REQUEST, 4, 4026532000, "b" * 36))
    for file in (data, whole[:cut] if cut < len(whole) else whole + b"x", whole[:-36] + b"\xff" * 36):
        with pytest.raises(WireError):
            decode_spooled(file)
