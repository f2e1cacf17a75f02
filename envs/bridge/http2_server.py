"""The trainer's side of one HTTP/2 connection: bytes in, calls out; answers in, bytes out.

grpcio's server spends several times as much processor time on a small call (`python -m
benchmarks.dialing`), most of it on handing the call from thread to thread; with small networks that
would be most of what a trainer does. This serves one unary method, in the thread of whoever feeds
it, and does no input or output itself.
RFC 9113 is HTTP/2; the gRPC side is docs/PROTOCOL-HTTP2.md of grpc. Header blocks are HPACK
(RFC 7541), read by the library `hpack`: those of a connection's first call, which shows whether the
dialler wants what is served here; a connection's later calls are the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple
from urllib.parse import quote

from hpack import Decoder, HPACKError

from envs.bridge.http2 import (
    FRAME_HEADER_BYTES,
    INITIAL_FRAME,
    INITIAL_WINDOW,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    MESSAGE_HEADER_BYTES,
    PREFACE,
    Flag,
    Frame,
    Setting,
    frame,
    header_text,
    long_text,
    settings_frame,
    window_update,
    without_padding,
)
from envs.bridge.limits import LARGEST_MESSAGE_BYTES


class Status(IntEnum):
    """Codes of gRPC that are used here."""

    OK = 0
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAUTHENTICATED = 16


class ErrorCode(IntEnum):
    """Why a connection or a call ends (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12


class Request(NamedTuple):
    """A whole call, to be answered or refused."""

    stream: int
    message: bytes


class Cancelled(NamedTuple):
    """The dialler no longer waits for the answer to this call."""

    stream: int


class Http2Error(Exception):
    """The bytes are no HTTP/2; `outgoing` holds the last words, then hang up."""


# :status 200 is entry 8 of HPACK's static table, content-type is the name of entry 31.
RESPONSE = b"\x88\x0f\x10" + header_text("application/grpc")
OK_TRAILERS = b"\x00" + header_text("grpc-status") + header_text("0")
NOT_HTTP2 = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks gRPC. It waits for an ML-Agents simulator.\n"
)
MAX_MESSAGE_LENGTH = 1000  # characters of a refusal's reason
LARGEST_HEADER_BYTES = 1 << 16
MOST_STREAMS = 16  # calls at a time; a simulator makes one
MOST_UNREAD_BYTES = 1 << 26  # of what is said to a dialler that keeps asking


@dataclass(slots=True)
class _Stream:
    """One call that is not over."""

    window: int  # how much of the answer the dialler lets us send
    body: bytearray = field(default_factory=bytearray)
    is_complete: bool = False  # the dialler has said all
    answer: memoryview | None = None  # what its windows have not let through yet


class ServerConnection:
    """Serves `path` to one dialler; `outgoing` collects what is to be sent."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._decoder: Decoder | None = Decoder()  # until the first call that is taken
        self.outgoing = bytearray()
        self._received = bytearray()
        self._has_preface = False
        self._is_known = False  # the first call's headers were what they should be
        self._streams: dict[int, _Stream] = {}
        self._last_stream = 0
        self._header_block: tuple[int, int, bytearray] | None = None  # stream, flags, so far
        self._unacknowledged_bytes = 0
        # What the dialler lets us send.
        self._window = INITIAL_WINDOW
        self._initial_window = INITIAL_WINDOW
        self._max_frame_bytes = INITIAL_FRAME
        self._handlers: dict[int, Callable[[int, int, bytes], Request | Cancelled | None]] = {
            Frame.DATA: self._take_data,
            Frame.HEADERS: self._take_headers,
            Frame.CONTINUATION: self._take_continuation,
            Frame.RST_STREAM: self._take_reset,
            Frame.SETTINGS: self._take_settings,
            Frame.WINDOW_UPDATE: self._take_window_update,
            Frame.PING: self._take_ping,
        }

    @property
    def is_known(self) -> bool:
        """Whether a call has been taken."""
        return self._is_known

    def receive(self, data: bytes) -> list[Request | Cancelled]:
        """Takes bytes as they come, and gives the calls that they complete or end.

        Raises:
            Http2Error: send what is outgoing, then hang up.
        """
        received = self._received
        received += data
        if not self._has_preface and not self._take_preface():
            return []
        news = []
        start, end = 0, len(received)
        while end - start >= FRAME_HEADER_BYTES:
            high, low, kind, flags, stream = struct.unpack_from(">BHBBI", received, start)
            payload_start = start + FRAME_HEADER_BYTES
            frame_end = payload_start + (high << 16 | low)
            if frame_end > end:
                break
            payload = bytes(memoryview(received)[payload_start:frame_end])
            start = frame_end
            if self._header_block is not None and kind != Frame.CONTINUATION:
                raise self._broken("a header block is cut off by another frame")
            handler = self._handlers.get(kind)
            if handler is not None:
                try:
                    event = handler(stream & LARGEST_WINDOW, flags, payload)
                except (struct.error, IndexError):
                    raise self._broken(f"a frame of type {kind} is too short") from None
                if event is not None:
                    news.append(event)
        del received[:start]
        return news

    def answer(self, stream: int, message: bytes) -> None:
        """Answers a call; does nothing when the dialler does not wait any more."""
        call = self._streams.get(stream)
        if call is None:
            return
        body = struct.pack(">BI", 0, len(message)) + message
        self.outgoing += frame(Frame.HEADERS, Flag.END_HEADERS, stream, RESPONSE)
        call.answer = memoryview(body)
        self._send_answer(stream, call)

    def refuse(self, stream: int, status: Status, reason: str) -> None:
        """Ends a call with an error; does nothing when the dialler does not wait any more."""
        call = self._streams.pop(stream, None)
        if call is None:
            return
        words = quote(reason[:MAX_MESSAGE_LENGTH], safe=" !#$&'()*+,/:;=?@[]").encode()
        block = RESPONSE + b"\x00" + header_text("grpc-status") + header_text(str(int(status)))
        block += b"\x00" + header_text("grpc-message") + long_text(words)
        self.outgoing += frame(Frame.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, stream, block)
        if not call.is_complete:
            self.outgoing += _reset(stream, ErrorCode.NO_ERROR)

    def go_away(self, code: ErrorCode, reason: str) -> None:
        """Says that no more calls are taken."""
        payload = struct.pack(">II", self._last_stream, code) + reason.encode()
        self.outgoing += frame(Frame.GOAWAY, 0, 0, payload)

    # ---- what the dialler says --------------------------------------------------------------

    def _broken(self, reason: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> Http2Error:
        self.go_away(code, reason)
        return Http2Error(reason)

    def _take_preface(self) -> bool:
        """Reads what every connection begins with, and answers with our settings."""
        received = self._received
        if not PREFACE.startswith(received[: len(PREFACE)]):
            self.outgoing += NOT_HTTP2
            raise Http2Error("this is no HTTP/2")
        if len(received) < len(PREFACE):
            return False
        del received[: len(PREFACE)]
        self._has_preface = True
        self._greet()
        return True

    def _greet(self) -> None:
        """Tells our settings: frames and messages of any size, of a few calls at a time."""
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
            Setting.INITIAL_WINDOW_SIZE: LARGEST_WINDOW,
            Setting.MAX_FRAME_SIZE: LARGEST_FRAME,
        }
        self.outgoing += settings_frame(settings)
        self.outgoing += window_update(LARGEST_WINDOW - INITIAL_WINDOW)

    def _take_headers(self, stream: int, flags: int, payload: bytes) -> Request | None:
        payload = without_padding(payload, flags)
        if flags & Flag.PRIORITY:
            payload = payload[5:]
        self._header_block = (stream, flags, bytearray(payload))
        return self._end_headers() if flags & Flag.END_HEADERS else None

    def _take_continuation(self, stream: int, flags: int, payload: bytes) -> Request | None:
        if self._header_block is None or self._header_block[0] != stream:
            raise self._broken("a header block goes on that has not begun")
        self._header_block[2].extend(payload)
        if len(self._header_block[2]) > LARGEST_HEADER_BYTES:
            raise self._broken("the headers are too long", ErrorCode.ENHANCE_YOUR_CALM)
        return self._end_headers() if flags & Flag.END_HEADERS else None

    def _end_headers(self) -> Request | None:
        """Begins a call, or ends one whose trailers these are."""
        assert self._header_block is not None
        (stream, flags, block), self._header_block = self._header_block, None
        if stream in self._streams:
            self._require_open(self._streams[stream])
            return self._end_request(stream) if flags & Flag.END_STREAM else None
        if stream % 2 == 0 or stream <= self._last_stream:
            raise self._broken(f"stream {stream} cannot be opened after {self._last_stream}")
        if len(self._streams) >= MOST_STREAMS:
            raise self._broken("too many calls at a time", ErrorCode.ENHANCE_YOUR_CALM)
        self._last_stream = stream
        self._streams[stream] = _Stream(self._initial_window)
        if not self._is_known and not self._knows(stream, bytes(block)):
            return None
        return self._end_request(stream) if flags & Flag.END_STREAM else None

    def _knows(self, stream: int, block: bytes) -> bool:
        """Tells whether a first call is to be taken; refuses it when it is not."""
        # One decoder for all calls until then: a refused dialler's next call builds on its headers.
        assert self._decoder is not None
        try:
            headers = {str(name): str(value) for name, value in self._decoder.decode(block)}
        except HPACKError as error:
            raise self._broken(str(error), ErrorCode.COMPRESSION_ERROR) from None
        if not self._is_welcome(stream, headers):
            return False
        self._is_known = headers.get(":path") == self._path
        if not self._is_known:
            found = headers.get(":path", "nothing")
            reason = f"{found} is not served here, only {self._path}: dial another port."
            self.refuse(stream, Status.UNIMPLEMENTED, reason)
            return False
        self._decoder = None
        return True

    def _is_welcome(self, stream: int, headers: Mapping[str, str]) -> bool:
        """Tells whether the dialler of a first call may call at all; here, anyone may."""
        return True

    def _take_data(self, stream: int, flags: int, payload: bytes) -> Request | None:
        self._unacknowledged_bytes += len(payload)
        if self._unacknowledged_bytes > LARGEST_WINDOW // 4:
            self.outgoing += window_update(self._unacknowledged_bytes)
            self._unacknowledged_bytes = 0
        call = self._streams.get(stream)
        if call is None:
            return None  # refused already
        self._require_open(call)
        call.body += without_padding(payload, flags)
        if self._num_body_bytes(call) > LARGEST_MESSAGE_BYTES + MESSAGE_HEADER_BYTES:
            reason = (
                f"The call's message, with those of other calls that have not ended, is longer "
                f"than {LARGEST_MESSAGE_BYTES} bytes. Send fewer agents, or smaller images."
            )
            self.refuse(stream, Status.RESOURCE_EXHAUSTED, reason)
            return None
        return self._end_request(stream) if flags & Flag.END_STREAM else None

    def _num_body_bytes(self, call: _Stream) -> int:
        """How many bytes of messages that have not ended are kept; `call` is one of the calls."""
        if len(self._streams) == 1:
            return len(call.body)
        return sum(len(other.body) for other in self._streams.values())

    def _require_open(self, call: _Stream) -> None:
        """Raises Http2Error when the dialler goes on with a call that it has ended."""
        if call.is_complete:
            raise self._broken("a call goes on that has ended", ErrorCode.STREAM_CLOSED)

    def _end_request(self, stream: int) -> Request | None:
        """Gives a call whose message is complete; refuses one that is none."""
        call = self._streams[stream]
        call.is_complete = True
        body, call.body = call.body, bytearray()
        if len(body) < MESSAGE_HEADER_BYTES:
            self.refuse(stream, Status.INTERNAL, "The call holds no message.")
            return None
        is_compressed, size = struct.unpack_from(">BI", body)
        if is_compressed:
            self.refuse(stream, Status.UNIMPLEMENTED, "Compressed messages are not read here.")
            return None
        if len(body) != MESSAGE_HEADER_BYTES + size:
            self.refuse(
                stream, Status.INTERNAL, "The call's message is cut off, or not the only one."
            )
            return None
        return Request(stream, bytes(memoryview(body)[MESSAGE_HEADER_BYTES:]))

    def _take_reset(self, stream: int, flags: int, payload: bytes) -> Cancelled | None:
        return Cancelled(stream) if self._streams.pop(stream, None) is not None else None

    def _take_settings(self, stream: int, flags: int, payload: bytes) -> None:
        if flags & Flag.ACK:
            return
        for offset in range(0, len(payload), 6):
            key, value = struct.unpack_from(">HI", payload, offset)
            if key == Setting.INITIAL_WINDOW_SIZE:
                self._require_window(value)
                for call in self._streams.values():
                    call.window += value - self._initial_window
                self._initial_window = value
            elif key == Setting.MAX_FRAME_SIZE:
                if not INITIAL_FRAME <= value <= LARGEST_FRAME:
                    raise self._broken(f"frames of {value} bytes cannot be asked for")
                self._max_frame_bytes = value
        self._require_reader()
        self.outgoing += frame(Frame.SETTINGS, Flag.ACK, 0, b"")
        self._send_waiting_answers()

    def _take_window_update(self, stream: int, flags: int, payload: bytes) -> None:
        (word,) = struct.unpack(">I", payload)
        increment = word & LARGEST_WINDOW
        if increment == 0:
            raise self._broken("a window grows by nothing")
        if stream == 0:
            self._window += increment
            self._require_window(self._window)
        elif stream in self._streams:
            call = self._streams[stream]
            call.window += increment
            self._require_window(call.window)
        self._send_waiting_answers()

    def _require_window(self, num_bytes: int) -> None:
        if num_bytes > LARGEST_WINDOW:
            reason = f"a window of {num_bytes} bytes is too large"
            raise self._broken(reason, ErrorCode.FLOW_CONTROL_ERROR)

    def _take_ping(self, stream: int, flags: int, payload: bytes) -> None:
        if not flags & Flag.ACK:
            self._require_reader()
            self.outgoing += frame(Frame.PING, Flag.ACK, 0, payload)

    def _require_reader(self) -> None:
        """Raises Http2Error when the dialler asks on and on, and never reads what it is told."""
        if len(self.outgoing) > MOST_UNREAD_BYTES:
            raise self._broken("nothing is read of what is sent", ErrorCode.ENHANCE_YOUR_CALM)

    # ---- what we say ------------------------------------------------------------------------

    def _send_waiting_answers(self) -> None:
        for stream, call in list(self._streams.items()):
            if call.answer is not None:
                self._send_answer(stream, call)

    def _send_answer(self, stream: int, call: _Stream) -> None:
        """Sends as much of an answer as the dialler's windows allow, and its end."""
        while call.answer:
            size = min(len(call.answer), self._max_frame_bytes, self._window, call.window)
            if size <= 0:
                return
            self._window -= size
            call.window -= size
            self.outgoing += frame(Frame.DATA, 0, stream, bytes(call.answer[:size]))
            call.answer = call.answer[size:]
        flags = Flag.END_HEADERS | Flag.END_STREAM
        self.outgoing += frame(Frame.HEADERS, flags, stream, OK_TRAILERS)
        del self._streams[stream]


def _reset(stream: int, code: ErrorCode) -> bytes:
    return frame(Frame.RST_STREAM, 0, stream, struct.pack(">I", code))
