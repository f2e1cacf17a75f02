"""The server's side of HTTP/2, byte by byte; real gRPC clients dial it in test_server.py."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.bridge import http2_server
from envs.bridge.http2 import PREFACE, Flag, Frame, frame, header_text
from envs.bridge.http2_server import Cancelled, Http2Error, Request, ServerConnection, Status

PATH = "/package.Service/Method"
HEADERS = b"\x83\x86\x04" + header_text(PATH) + b"\x0f\x10" + header_text("application/grpc")
OPENING = PREFACE + frame(Frame.SETTINGS, 0, 0, b"")


def grpc_message(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def call(stream: int, message: bytes) -> bytes:
    return frame(Frame.HEADERS, Flag.END_HEADERS, stream, HEADERS) + frame(
        Frame.DATA, Flag.END_STREAM, stream, grpc_message(message)
    )


def sent(connection: ServerConnection) -> list[tuple[int, int, int, bytes]]:
    """Takes what is outgoing apart: kind, flags, stream and payload of every frame."""
    data = bytes(connection.outgoing)
    connection.outgoing.clear()
    frames = []
    while data:
        size, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
        frames.append((kind, flags, int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return frames


def opened(settings: bytes = b"") -> ServerConnection:
    connection = ServerConnection(PATH)
    assert connection.receive(PREFACE + frame(Frame.SETTINGS, 0, 0, settings)) == []
    connection.outgoing.clear()
    return connection


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.data())
def test_calls_are_the_same_however_their_bytes_arrive(
    messages: list[bytes], data: st.DataObject
) -> None:
    stream = OPENING + b"".join(call(2 * i + 1, m) for i, m in enumerate(messages))
    connection, found = ServerConnection(PATH), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += connection.receive(stream[:size])
        stream = stream[size:]
    assert found == [Request(2 * i + 1, message) for i, message in enumerate(messages)]


def test_padding_priorities_continuations_and_pieces_change_nothing() -> None:
    connection = opened()
    padded = bytes([3]) + bytes(5) + HEADERS[:10] + bytes(3)
    pieces = frame(Frame.HEADERS, Flag.PADDED | Flag.PRIORITY, 1, padded)
    pieces += frame(Frame.CONTINUATION, 0, 1, HEADERS[10:20])
    pieces += frame(Frame.CONTINUATION, Flag.END_HEADERS, 1, HEADERS[20:])
    body = grpc_message(b"abcdef")
    pieces += frame(Frame.DATA, Flag.PADDED, 1, bytes([2]) + body[:4] + bytes(2))
    pieces += frame(0x7F, 0, 0, b"a kind of frame that nobody knows")
    pieces += frame(Frame.DATA, 0, 1, body[4:])
    assert connection.receive(pieces) == []
    assert connection.receive(frame(Frame.DATA, Flag.END_STREAM, 1, b"")) == [Request(1, b"abcdef")]


def test_answer_is_headers_message_and_status() -> None:
    connection = opened()
    connection.receive(call(1, b"?"))
    connection.answer(1, b"!!")
    headers, data, trailers = sent(connection)
    assert headers[:3] == (Frame.HEADERS, Flag.END_HEADERS, 1)
    assert data == (Frame.DATA, 0, 1, b"\0\0\0\0\x02!!")
    assert trailers[:3] == (Frame.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 1)
    assert trailers[3].endswith(b"grpc-status\x010")
    connection.answer(1, b"again")  # the call is over
    assert sent(connection) == []


def test_answer_keeps_to_the_windows_and_frame_size_of_the_dialler() -> None:
    limits = struct.pack(">HIHI", 4, 10, 5, 16_384)
    connection = opened(limits)
    connection.receive(call(1, b"?"))
    connection.answer(1, bytes(20_000))
    assert [len(data) for kind, _, _, data in sent(connection) if kind == Frame.DATA] == [10]
    connection.receive(frame(Frame.WINDOW_UPDATE, 0, 1, struct.pack(">I", 19_000)))
    assert [len(data) for kind, _, _, data in sent(connection)] == [16_384, 2_616]
    # A larger window for all streams counts for this one too (RFC 9113, section 6.9.2).
    connection.receive(frame(Frame.SETTINGS, 0, 0, struct.pack(">HI", 4, 10_000)))
    kinds = [kind for kind, _, _, _ in sent(connection)]
    assert kinds == [Frame.SETTINGS, Frame.DATA, Frame.HEADERS]


def test_answers_share_the_window_of_the_connection() -> None:
    connection = opened(struct.pack(">HI", 4, 1_000_000))
    connection.receive(call(1, b"?") + call(3, b"?"))
    connection.answer(1, bytes(60_000))
    connection.answer(3, bytes(60_000))
    assert sum(len(data) for kind, _, _, data in sent(connection) if kind == Frame.DATA) == 65_535
    connection.receive(frame(Frame.WINDOW_UPDATE, 0, 0, struct.pack(">I", 60_000)))
    frames = sent(connection)
    assert sum(len(data) for kind, _, _, data in frames if kind == Frame.DATA) == 120_010 - 65_535
    assert frames[-1][2] == 3


def test_pings_are_returned() -> None:
    connection = opened()
    connection.receive(frame(Frame.PING, 0, 0, b"12345678"))
    assert sent(connection) == [(Frame.PING, Flag.ACK, 0, b"12345678")]
    connection.receive(frame(Frame.PING, Flag.ACK, 0, b"12345678"))
    assert sent(connection) == []


def test_call_that_is_taken_back_is_told_and_gets_no_answer() -> None:
    connection = opened()
    connection.receive(call(1, b"?"))
    reset = frame(Frame.RST_STREAM, 0, 1, struct.pack(">I", 8))
    assert connection.receive(reset) == [Cancelled(1)]
    assert connection.receive(reset) == []
    connection.answer(1, b"!")
    assert sent(connection) == []


def test_refusal_before_the_message_is_whole_also_resets_the_call() -> None:
    connection = opened()
    connection.receive(frame(Frame.HEADERS, Flag.END_HEADERS, 1, HEADERS))
    connection.refuse(1, Status.FAILED_PRECONDITION, "100 % \u00fcber\n" + "x" * 300)
    trailers, reset = sent(connection)
    assert trailers[1] == Flag.END_HEADERS | Flag.END_STREAM
    assert b"grpc-status\x019" in trailers[3]
    assert b"100 %25 %C3%BCber%0Axxx" in trailers[3]
    assert reset == (Frame.RST_STREAM, 0, 1, bytes(4))
    late = frame(Frame.DATA, Flag.END_STREAM, 1, grpc_message(b"late"))
    assert connection.receive(late) == []


@pytest.mark.parametrize(
    "broken",
    [
        frame(Frame.HEADERS, Flag.END_HEADERS, 2, HEADERS),  # an even number is the server's
        call(5, b"") + call(3, b""),
        frame(Frame.HEADERS, 0, 1, HEADERS) + frame(Frame.PING, 0, 0, bytes(8)),
        frame(Frame.CONTINUATION, Flag.END_HEADERS, 1, HEADERS),
        frame(Frame.HEADERS, Flag.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        frame(Frame.WINDOW_UPDATE, 0, 0, b"\0"),
        frame(Frame.SETTINGS, 0, 0, b"\0\x04\0"),
        # Sections 6.5.2, 6.9, 6.9.1, 6.1 and 5.1 of the RFC.
        frame(Frame.SETTINGS, 0, 0, struct.pack(">HI", 5, 0)),
        frame(Frame.SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)),
        frame(Frame.WINDOW_UPDATE, 0, 0, bytes(4)),
        frame(Frame.WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)),
        frame(Frame.HEADERS, Flag.END_HEADERS, 1, HEADERS)
        + frame(Frame.DATA, Flag.PADDED, 1, bytes([9]) + bytes(8)),
        call(1, b"") + frame(Frame.DATA, Flag.END_STREAM, 1, grpc_message(b"")),
        call(1, b"") + frame(Frame.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 1, HEADERS),
    ],
)
def test_what_is_no_http2_ends_the_connection_with_a_reason(broken: bytes) -> None:
    connection = opened()
    with pytest.raises(Http2Error):
        connection.receive(broken)
    kind, _, _, payload = sent(connection)[-1]
    assert kind == Frame.GOAWAY
    assert len(payload) > 8


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_garbage_is_never_anything_but_an_http2_error(garbage: bytes) -> None:
    for beginning in (b"", OPENING, OPENING + call(1, b"x")):
        connection = ServerConnection(PATH)
        try:
            connection.receive(beginning + garbage)
        except Http2Error:
            assert connection.outgoing


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 63), st.integers(0, 5), st.binary(max_size=30))
    )
)
def test_frames_in_any_order_are_never_anything_but_an_http2_error(
    frames: list[tuple[int, int, int, bytes]],
) -> None:
    connection = opened()
    try:
        for kind, flags, stream, payload in frames:
            for event in connection.receive(frame(kind, flags, stream, payload)):
                if isinstance(event, Request):
                    connection.answer(event.stream, b"!")
    except Http2Error:
        assert connection.outgoing


@pytest.mark.parametrize(
    "flags", [0, Flag.END_STREAM], ids=["without an end", "with its last frame"]
)
def test_too_long_message_is_refused(flags: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_server, "LARGEST_MESSAGE_BYTES", 1000)
    connection = opened()
    connection.receive(frame(Frame.HEADERS, Flag.END_HEADERS, 1, HEADERS))
    for size in (500, 505):  # with the five bytes that say how long it will be
        assert connection.receive(frame(Frame.DATA, 0, 1, bytes(size))) == []
    assert sent(connection) == []
    connection.receive(frame(Frame.DATA, flags, 1, b"x"))
    require_too_long(connection)
    assert connection.receive(frame(Frame.DATA, Flag.END_STREAM, 1, bytes(500))) == []
    assert connection.receive(call(3, b"the next one")) == [Request(3, b"the next one")]


def require_too_long(connection: ServerConnection) -> None:
    trailers, reset = sent(connection)
    assert b"\x0bgrpc-status\x018" in trailers[3]
    assert b"longer than 1000 bytes" in trailers[3]
    assert reset[0] == Frame.RST_STREAM


def test_messages_of_several_calls_share_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_server, "LARGEST_MESSAGE_BYTES", 1000)
    connection = opened()
    for stream in (1, 3):
        connection.receive(frame(Frame.HEADERS, Flag.END_HEADERS, stream, HEADERS))
        connection.receive(frame(Frame.DATA, 0, stream, bytes(500)))
    assert sent(connection) == []
    connection.receive(frame(Frame.DATA, 0, 3, bytes(6)))
    require_too_long(connection)
    connection.receive(frame(Frame.DATA, 0, 1, bytes(500)))  # the other one goes on
    assert sent(connection) == []


def test_calls_without_an_end_are_limited() -> None:
    connection = opened()
    for number in range(http2_server.MOST_STREAMS):
        connection.receive(frame(Frame.HEADERS, Flag.END_HEADERS, 2 * number + 1, HEADERS))
    with pytest.raises(Http2Error, match="too many calls"):
        connection.receive(frame(Frame.HEADERS, Flag.END_HEADERS, 99, HEADERS))
    assert sent(connection)[-1][0] == Frame.GOAWAY


def test_headers_without_an_end_are_limited() -> None:
    connection = opened()
    connection.receive(frame(Frame.HEADERS, 0, 1, HEADERS))
    with pytest.raises(Http2Error, match="headers are too long"):
        for _ in range(5):
            connection.receive(frame(Frame.CONTINUATION, 0, 1, bytes(16_000)))


def test_dialler_that_asks_and_never_reads_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_server, "MOST_UNREAD_BYTES", 1000)
    for asked in (frame(Frame.PING, 0, 0, bytes(8)), frame(Frame.SETTINGS, 0, 0, b"")):
        connection = opened()
        with pytest.raises(Http2Error, match="nothing is read"):
            for _ in range(200):
                connection.receive(asked)
