"""Unary gRPC calls over one HTTP/2 connection, one at a time: all that a simulator needs.

A simulator makes one small call after another, and the processor time of a call is time in which
the environment stands still. grpcio needs three times as much of it (`python -m
benchmarks.dialing`). There are no threads, no timers and no table of calls.
RFC 9113 is HTTP/2; the gRPC side is docs/PROTOCOL-HTTP2.md of grpc. Only what such a client needs
of both is here: header blocks of the server are not decoded, since the answer is in the data.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

from envs.bridge.http2 import (
    FRAME_HEADER_BYTES,
    INITIAL_FRAME,
    INITIAL_WINDOW,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    MESSAGE_HEADER_BYTES,
    PREFACE,
    RECEIVE_BYTES,
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
from envs.tls import Trust, address_words

RETRY_S = 0.02
# As our server writes it, and any other that does not compress its trailers.
UNAUTHENTICATED = header_text("grpc-status") + header_text("16")
# After a minute of silence the other machine is asked whether it is still there, for a minute.
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}


@dataclass(frozen=True, slots=True)
class TrainerAddress:
    """Where a trainer listens, and how to be let in."""

    host: str
    port: int
    trust: Trust | None = None  # None: no TLS, which loopback alone should be dialled with
    token: str | None = field(default=None, repr=False)


class CallError(ConnectionError):
    """The call did not bring an answer: the server is gone, or has refused it."""


class UnauthenticatedError(CallError):
    """The server wants a token that the call did not bear."""


class UnaryConnection:
    """Calls one method of a server, in one thread, each call after the answer to the one before."""

    def __init__(
        self,
        host: str,
        port: int,
        path: str,
        connect_timeout_s: float,
        *,
        trust: Trust | None = None,
        token: str | None = None,
    ) -> None:
        """Connects; waits up to `connect_timeout_s` for a server that does not listen yet.

        Args:
            host: name or address.
            port: of the server.
            path: of the method.
            connect_timeout_s: for the connection, and as long again for TLS.
            trust: how TLS knows the server; None = no TLS.
            token: for the server, with every call.

        Raises:
            OSError: nobody listens there.
            DoorError: no TLS there, or another server than the one that is meant.
        """
        self._socket = _connected(host, port, connect_timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if trust is not None:
            self._socket = _guarded(self._socket, host, trust, connect_timeout_s)
        headers = _header_block(address_words(host, port), path, is_tls=trust is not None)
        self._request_headers = headers + (b"" if token is None else _authorization(token))
        self._stream = -1
        self._received = bytearray()
        # How much the server lets us send: on the whole connection, and on the current stream.
        self._connection_window = INITIAL_WINDOW
        self._stream_window = INITIAL_WINDOW
        self._initial_window = INITIAL_WINDOW
        self._max_frame_bytes = INITIAL_FRAME
        self._unacknowledged_bytes = 0
        settings = {
            Setting.HEADER_TABLE_SIZE: 0,
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: LARGEST_WINDOW,
            Setting.MAX_FRAME_SIZE: LARGEST_FRAME,
        }
        opening = PREFACE + settings_frame(settings)
        self._send(opening + window_update(LARGEST_WINDOW - INITIAL_WINDOW))

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()

    def call(self, message: bytes) -> bytes:
        """Sends a message and waits, without limit, for the answer.

        Raises:
            CallError: there is no answer, and there will be none to any other call.
        """
        # Odd numbers up to 2**31: enough for 12 days of 1000 calls per second. Then the server
        # hangs up, this simulator ends, and the trainer starts it anew.
        self._stream += 2
        self._stream_window = self._initial_window
        self._answer = bytearray()
        self._is_ended = False
        headers = frame(Frame.HEADERS, Flag.END_HEADERS, self._stream, self._request_headers)
        body = struct.pack(">BI", 0, len(message)) + message
        self._send_data(headers, body)
        answer = self._answer
        while True:
            if len(answer) >= MESSAGE_HEADER_BYTES:
                is_compressed, size = struct.unpack_from(">BI", answer)
                if is_compressed:
                    raise CallError("the server sent a compressed message, unasked")
                if len(answer) >= MESSAGE_HEADER_BYTES + size:
                    return bytes(memoryview(answer)[MESSAGE_HEADER_BYTES:])
            if self._is_ended:
                raise CallError("the server ended the call without an answer")
            self._receive_frame()

    def _send_data(self, headers: bytes, body: bytes) -> None:
        """Sends a request, in as many pieces as the server's windows and frame size ask for."""
        view, pending = memoryview(body), headers
        while view:
            size = min(
                len(view), self._max_frame_bytes, self._connection_window, self._stream_window
            )
            if size <= 0:
                self._send(pending)
                pending = b""
                if self._is_ended:  # refused before all of it was sent
                    return
                self._receive_frame()
                continue
            self._connection_window -= size
            self._stream_window -= size
            is_last = size == len(view)
            flags = Flag.END_STREAM if is_last else 0
            self._send(pending + frame(Frame.DATA, flags, self._stream, bytes(view[:size])))
            pending, view = b"", view[size:]

    def _send(self, data: bytes) -> None:
        if not data:
            return
        try:
            self._socket.sendall(data)
        except OSError as error:
            words = self._last_words()
            raise CallError(words or f"sending failed: {error}") from error

    def _last_words(self) -> str | None:
        """Gives why the server went away, if it has said so before it hung up."""
        with suppress(OSError):
            self._received += self._socket.recv(RECEIVE_BYTES)
        received, start = self._received, 0
        while len(received) - start >= FRAME_HEADER_BYTES:
            end = start + FRAME_HEADER_BYTES + int.from_bytes(received[start : start + 3], "big")
            if received[start + 3] == Frame.GOAWAY:
                # Behind the last stream and the error, four bytes each.
                words = received[start + FRAME_HEADER_BYTES + 8 : end]
                return f"the server goes away: {_readable(bytes(words))}"
            start = end
        return None

    def _receive_frame(self) -> None:
        """Waits for one frame and heeds it."""
        received = self._received
        while len(received) < FRAME_HEADER_BYTES:
            self._receive()
        size = int.from_bytes(received[:3], "big")
        kind, flags = received[3], received[4]
        stream = int.from_bytes(received[5:9], "big") & LARGEST_WINDOW
        end = FRAME_HEADER_BYTES + size
        while len(received) < end:
            self._receive()
        payload = bytes(memoryview(received)[FRAME_HEADER_BYTES:end])
        del received[:end]
        if kind == Frame.DATA:
            self._take_data(stream, flags, payload)
        elif kind == Frame.HEADERS:
            if stream == self._stream and flags & Flag.END_STREAM:
                self._end(payload)
        elif kind == Frame.SETTINGS:
            if not flags & Flag.ACK:
                self._take_settings(payload)
        elif kind == Frame.WINDOW_UPDATE:
            (increment,) = struct.unpack(">I", payload)
            if stream == 0:
                self._connection_window += increment
            elif stream == self._stream:
                self._stream_window += increment
        elif kind == Frame.PING:
            if not flags & Flag.ACK:
                self._send(frame(Frame.PING, Flag.ACK, 0, payload))
        elif kind == Frame.RST_STREAM:
            if stream == self._stream:
                raise CallError(f"the server reset the call (error {payload.hex()})")
        elif kind == Frame.GOAWAY:
            (last_stream,) = struct.unpack_from(">I", payload)
            if last_stream & LARGEST_WINDOW < self._stream:
                raise CallError(f"the server goes away: {_readable(payload[8:])}")

    def _receive(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except OSError as error:
            raise CallError(f"receiving failed: {error}") from error
        if not data:
            raise CallError("the server hung up")
        if not self._received and self._stream <= 1 and data[:5] == b"HTTP/":
            raise CallError(f"this is no gRPC server: {_readable(data)}")
        self._received += data

    def _take_data(self, stream: int, flags: int, payload: bytes) -> None:
        self._unacknowledged_bytes += len(payload)
        if self._unacknowledged_bytes > LARGEST_WINDOW // 4:
            self._send(window_update(self._unacknowledged_bytes))
            self._unacknowledged_bytes = 0
        if stream != self._stream:
            return
        self._answer += without_padding(payload, flags)
        if flags & Flag.END_STREAM:
            self._is_ended = True

    def _take_settings(self, payload: bytes) -> None:
        for offset in range(0, len(payload), 6):
            key, value = struct.unpack_from(">HI", payload, offset)
            if key == Setting.INITIAL_WINDOW_SIZE:
                self._stream_window += value - self._initial_window
                self._initial_window = value
            elif key == Setting.MAX_FRAME_SIZE:
                self._max_frame_bytes = value
        self._send(frame(Frame.SETTINGS, Flag.ACK, 0, b""))

    def _end(self, trailers: bytes) -> None:
        """Takes the end of the call; without an answer before it, it is a refusal."""
        self._is_ended = True
        if UNAUTHENTICATED in trailers:
            raise UnauthenticatedError(
                _message(trailers) or "it wants another token, or one at all"
            )
        if len(self._answer) < MESSAGE_HEADER_BYTES:
            raise CallError(f"the server refused the call: {_readable(trailers)}")


def _connected(host: str, port: int, timeout_s: float) -> socket.socket:
    limit = time.monotonic() + timeout_s
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=timeout_s)
        except ConnectionRefusedError:
            if time.monotonic() + RETRY_S > limit:
                raise
            time.sleep(RETRY_S)  # the other process cannot tell us when it listens
        else:
            connection.settimeout(None)
            return connection


def _guarded(wire: socket.socket, host: str, trust: Trust, timeout_s: float) -> socket.socket:
    """Makes a connection speak TLS, and notice when the network between the machines is gone."""
    wire.settimeout(timeout_s)
    try:
        tls = trust.wrap(wire, host, "h2")
    except BaseException:
        wire.close()
        raise
    tls.settimeout(None)
    tls.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            tls.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return tls


def _authorization(token: str) -> bytes:
    """Gives the header that bears the token, never to be remembered by who passes it on."""
    return b"\x1f\x08" + long_text(b"Bearer " + token.encode("ascii"))  # entry 23 has the name


def _header_block(authority: str, path: str, *, is_tls: bool) -> bytes:
    """Gives a request's headers in HPACK (RFC 7541), none of them to be remembered."""
    return b"".join(
        (
            b"\x83",  # :method POST, entry 3 of the static table
            b"\x87" if is_tls else b"\x86",  # :scheme https or http, entries 7 and 6
            b"\x04" + header_text(path),  # entry 4 has the name :path
            b"\x01" + long_text(authority.encode("ascii")),  # entry 1 has the name :authority
            b"\x0f\x10" + header_text("application/grpc"),  # entry 31 has the name content-type
            b"\x00" + header_text("te") + header_text("trailers"),
        )
    )


def _readable(block: bytes) -> str:
    """Gives what a human can read in a header block; servers write their reasons in clear."""
    pieces = re.findall(rb"[ -~]{4,}", block)
    return b" ".join(pieces).decode("ascii") or "no reason given"


def _message(trailers: bytes) -> str:
    """Gives the reason of a refusal, if a server wrote it as ours does: plainly, and quoted."""
    _, name, rest = trailers.partition(header_text("grpc-message"))
    if not name or not rest:
        return ""
    length, start, shift = rest[0], 1, 0
    if length == 127:  # what is more follows in groups of seven bits (RFC 7541, section 5.1)
        for digit in rest[1:5]:
            length += (digit & 127) << shift
            start, shift = start + 1, shift + 7
            if digit < 128:
                break
    return unquote(rest[start : start + length].decode("ascii", "replace"))
