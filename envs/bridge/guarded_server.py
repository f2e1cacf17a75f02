"""A simulator's port for other machines: TLS, and a token before anything is read.

A class of its own, so that nothing of it is in the way of this machine's own simulators.
"""

from __future__ import annotations

import hmac
import logging
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from envs.bridge.event_loop import TimedEventLoop
from envs.bridge.http2 import (
    INITIAL_FRAME,
    INITIAL_WINDOW,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    Frame,
    Setting,
    frame,
    settings_frame,
    window_update,
)
from envs.bridge.http2_server import (
    MOST_STREAMS,
    Cancelled,
    ErrorCode,
    Request,
    ServerConnection,
    Status,
)
from envs.bridge.protocol import EXCHANGE
from envs.bridge.server import Call, ConnectionLost, Dialer, SimulatorServer
from envs.bridge.tls_wire import NotTlsError, TlsWire
from envs.tls import LOOPBACK, TOKEN_VARIABLE, address_words

_logger = logging.getLogger(__name__)

# All that a dialler may send before it has shown its token: headers, and a first message of some
# hundred bytes. Its windows let no more through.
STRANGER_BYTES = 1 << 17
LOG_EVERY_S = 1.0  # a line about strangers at most; what happens in between is counted
NO_TOKEN = (
    "This trainer needs a token, and none was sent. Simulators pass it as the gRPC metadata "
    "`authorization: Bearer TOKEN`; python -m envs.gym takes --token-file FILE or the environment "
    f"variable {TOKEN_VARIABLE}. It is the token that the trainer was started with."
)
WRONG_TOKEN = (
    "The token that was sent is not this trainer's. Pass the one that the trainer was started with "
    f"(its --token-file or {TOKEN_VARIABLE})."
)
NEEDS_TLS = (
    "This port speaks TLS only. python -m envs.gym takes --tls-fingerprint or --tls-ca. A Unity "
    "build cannot speak TLS: let it dial a port of its own machine that ssh -L or stunnel forwards."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """How simulators of other machines come in."""

    tls: ssl.SSLContext
    token: str = field(repr=False)
    host: str = LOOPBACK
    handshake_timeout_s: float = 10.0  # from dialling to the first call with the token
    fingerprint: str = ""  # of the certificate, to be shown to the user


class GuardedConnection(ServerConnection):
    """A connection whose first call has to bear a token; before that little of it is kept.

    Args:
        path: of the only method.
        token: what `authorization` has to bear.
        refused: hears why a call was refused.
    """

    def __init__(self, path: str, token: str, refused: Callable[[str], None]) -> None:
        super().__init__(path)
        self._token = b"Bearer " + token.encode("ascii")
        self._refused = refused
        self._stranger_bytes = 0

    def receive(self, data: bytes) -> list[Request | Cancelled]:
        """Takes bytes as they come; few before the token.

        Raises:
            Http2Error: send what is outgoing, then hang up.
        """
        if not self._is_known:
            self._stranger_bytes += len(data)
            if self._stranger_bytes > STRANGER_BYTES:
                reason = f"it sent more than {STRANGER_BYTES} bytes without the token"
                self._refused(reason)
                raise self._broken("too much without a token", ErrorCode.ENHANCE_YOUR_CALM)
        return super().receive(data)

    def _greet(self) -> None:
        """Tells settings that let no more through than a stranger may send."""
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
            Setting.INITIAL_WINDOW_SIZE: INITIAL_WINDOW,
            Setting.MAX_FRAME_SIZE: INITIAL_FRAME,
        }
        self.outgoing += settings_frame(settings)

    def _is_welcome(self, stream: int, headers: Mapping[str, str]) -> bool:
        """Compares the token, in a time that does not depend on where it differs."""
        given = headers.get("authorization")
        shown = (given or "").encode("utf-8", "replace")
        if not hmac.compare_digest(shown, self._token):
            self.refuse(stream, Status.UNAUTHENTICATED, NO_TOKEN if given is None else WRONG_TOKEN)
            self._refused("it sent no token" if given is None else "its token is wrong")
            return False
        settings = {
            Setting.INITIAL_WINDOW_SIZE: LARGEST_WINDOW,
            Setting.MAX_FRAME_SIZE: LARGEST_FRAME,
        }
        self.outgoing += settings_frame(settings)
        self.outgoing += window_update(LARGEST_WINDOW - INITIAL_WINDOW)
        return True


class GuardedServer(SimulatorServer):
    """Listens on one port for one simulator, which speaks TLS and has the token.

    Args:
        port: 0 = the operating system picks one.
        loop: serves the port; all methods belong to its thread.
        deliver: gets every Call and ConnectionLost; must not block.
        door: who may come in.

    Raises:
        SimulatorDidNotStartError: the port is in use, or not ours to use.
    """

    def __init__(
        self,
        port: int,
        loop: TimedEventLoop[Any],
        deliver: Callable[[Call | ConnectionLost], None],
        door: Door,
    ) -> None:
        self._clock = loop
        self._door = door
        self._next_line_s = 0.0
        self._num_untold = 0
        super().__init__(port, loop, deliver, door.host)

    def _accept(self, ready: int) -> None:
        with suppress(OSError):  # it has hung up already
            plain, _ = self._listener.accept()
            peer = address_words(*plain.getpeername()[:2])
            wire = TlsWire(plain, self._door.tls)
            connection = GuardedConnection(
                EXCHANGE, self._door.token, lambda why: self._tell_refusal(peer, why)
            )
            dialer = self._admit(wire, connection)
            dialer.on_end = lambda: self._explain(dialer, wire)
            self._clock.after(self._door.handshake_timeout_s, lambda: self._expect(dialer, wire))

    def _lose(self, dialer: Dialer, stream: int | None) -> None:
        """Also hears of a simulator that hangs up between two calls: no process's end tells it."""
        was_idle = self._pending is None and not self._is_closing
        super()._lose(dialer, stream)
        if stream is None and dialer is self._peer and was_idle:
            self._deliver(ConnectionLost(Call(b"", self.generation, self._answer)))

    def _explain(self, dialer: Dialer, wire: TlsWire) -> None:
        """Tells of a handshake that failed; who does not speak TLS is told what to do."""
        if wire.failure is None:
            return
        if isinstance(wire.failure, NotTlsError):
            words = struct.pack(">II", 0, ErrorCode.INADEQUATE_SECURITY) + NEEDS_TLS.encode()
            wire.say_plainly(settings_frame({}) + frame(Frame.GOAWAY, 0, 0, words))
        self._tell_refusal(dialer.address, f"no TLS connection: {wire.failure}")

    def _expect(self, dialer: Dialer, wire: TlsWire) -> None:
        """Hangs up on a dialler whose time is over."""
        if dialer.is_known or dialer not in self._dialers:
            return
        what = "no call with the token came" if wire.is_shaken else "the TLS handshake did not end"
        limit = f"{self._door.handshake_timeout_s:g} s (listen_settings.handshake_timeout_s)"
        self._tell_refusal(dialer.address, f"{what} within {limit}")
        dialer.hang_up()

    def _tell_refusal(self, peer: str, why: str) -> None:
        now = time.monotonic()
        if now < self._next_line_s:
            self._num_untold += 1
            return
        others = f" ({self._num_untold} more since the last such line)" if self._num_untold else ""
        self._next_line_s, self._num_untold = now + LOG_EVERY_S, 0
        _logger.warning("Port %d refused %s: %s.%s", self.port, peer, why, others)
