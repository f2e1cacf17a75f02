"""A TLS connection that looks like a non-blocking socket to who serves it."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Any

from envs.bridge.http2 import RECEIVE_BYTES

MUST_WAIT = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
TLS_RECORD = b"\x16"  # what a TLS client begins with (RFC 8446, section 5.1)
PROTOCOL = "h2"


class NotTlsError(OSError):
    """The peer does not begin with a TLS handshake."""


class NoHttp2Error(OSError):
    """The peer speaks TLS, but not for HTTP/2."""


class TlsWire:
    """The server's side of one TLS connection; shakes hands in the course of `recv`.

    Everything that has to wait raises BlockingIOError, as a plain socket does.

    Args:
        wire: just accepted.
        context: of the server.
    """

    def __init__(self, wire: socket.socket, context: ssl.SSLContext) -> None:
        wire.setblocking(False)
        self._plain = wire
        self._context = context
        self._tls: ssl.SSLSocket | None = None
        self._is_shaken = False
        self.failure: OSError | None = None  # why the handshake came to nothing

    @property
    def is_shaken(self) -> bool:
        """Whether the handshake is over."""
        return self._is_shaken

    @property
    def _wire(self) -> socket.socket:
        return self._tls or self._plain

    def setblocking(self, flag: bool, /) -> None:
        """Does nothing but to agree: it never blocks."""
        assert not flag, "a TlsWire does not block"

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """As a socket's."""
        self._wire.setsockopt(level, option, value)

    def getpeername(self) -> Any:
        """As a socket's."""
        return self._wire.getpeername()

    def fileno(self) -> int:
        """As a socket's; -1 once closed."""
        return self._wire.fileno()

    def close(self) -> None:
        """Hangs up, without a farewell of TLS's own: HTTP/2 has said goodbye."""
        self._wire.close()

    def recv(self, num_bytes: int, /) -> bytes:
        """Gives what has come, b"" at the end; goes on with the handshake first.

        Raises:
            BlockingIOError: nothing that can be read yet.
            OSError: the handshake failed, see `failure`; or the connection broke.
        """
        tls = self._tls if self._is_shaken else self._shake()
        assert tls is not None
        pieces: list[bytes] = []
        left = num_bytes
        # A TLS record holds at most 16 KiB, and what the library has read ahead wakes no selector.
        while left > 0:
            try:
                piece = tls.recv(left)
            except MUST_WAIT:
                break
            except OSError:
                if not pieces:
                    raise
                break  # it fails again next time
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            left -= len(piece)
        if rest := tls.pending():
            pieces.append(tls.recv(rest))
        if not pieces:
            raise BlockingIOError
        return b"".join(pieces)

    def send(self, data: bytearray, /) -> int:
        """Sends as much as goes without waiting, and gives how many bytes that were.

        Raises:
            BlockingIOError: none, for now; the next call must begin with the same bytes.
        """
        tls, sent = self._tls, 0
        if tls is None or not self._is_shaken:
            raise BlockingIOError
        with memoryview(data) as view:
            while sent < len(view):
                try:
                    with view[sent:] as rest:
                        sent += tls.send(rest)
                except MUST_WAIT:
                    break
        if not sent and data:
            raise BlockingIOError
        return sent

    def _shake(self) -> ssl.SSLSocket:
        """Goes on with the handshake; gives the connection once it is over."""
        try:
            if self._tls is None:
                self._begin()
            assert self._tls is not None
            self._tls.do_handshake()
            if self._tls.selected_alpn_protocol() != PROTOCOL:
                raise NoHttp2Error("the dialler did not ask for HTTP/2 (ALPN h2)")
        except MUST_WAIT:
            # Our part of a handshake is less than an empty socket takes, so only reading may wait.
            raise BlockingIOError from None
        except BlockingIOError:
            raise
        except OSError as error:
            self.failure = error
            raise
        self._is_shaken = True
        return self._tls

    def _begin(self) -> None:
        """Looks at the first byte before the TLS library does, which drops what is no TLS."""
        first = self._plain.recv(1, socket.MSG_PEEK)
        if not first:
            raise ConnectionResetError("the dialler hung up")
        if first != TLS_RECORD:
            raise NotTlsError("the dialler does not speak TLS")
        self._tls = self._context.wrap_socket(
            self._plain, server_side=True, do_handshake_on_connect=False
        )

    def say_plainly(self, words: bytes) -> None:
        """Sends to a dialler that does not speak TLS; what does not fit is dropped."""
        if self._tls is None:
            with suppress(OSError):  # it has hung up: nobody to talk to
                self._plain.send(words)
                # What lies unread when a socket is closed resets the connection, words and all.
                self._plain.recv(RECEIVE_BYTES)
