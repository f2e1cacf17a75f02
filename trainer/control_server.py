"""The HTTP of the control endpoint: a token, TLS where others reach it, limits on everything."""

from __future__ import annotations

import hmac
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from envs.tls import CONTROL_TOKEN_VARIABLE, LOOPBACK, is_loopback
from trainer.control_client import TOKEN_IS_RIGHT

logger = logging.getLogger(__name__)

LARGEST_BODY_BYTES = 1 << 16
MOST_CONNECTIONS = 32
IDLE_LIMIT_S = 10.0  # between two bytes of a request
REQUEST_LIMIT_S = 20.0  # from dialling to the end of the request, TLS included
NAMES = {LOOPBACK, "localhost"}


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = "application/json"

    @classmethod
    def json(cls, status: int, document: object) -> Self:
        """Makes an answer of something that JSON can hold."""
        return cls(status, json.dumps(document).encode() + b"\n")

    @classmethod
    def message(cls, status: int, text: str) -> Self:
        """Makes an answer that is a sentence for the user."""
        return cls.json(status, {"message": text})


Answer = Callable[[str, str, Mapping[str, object]], Reply]
"""Method, path and the JSON body of a request that is in order -> what to answer."""


class ControlServer:
    """Listens at once; answers from `start` on, in threads of its own."""

    def __init__(
        self,
        port: int,
        token: str,
        answer: Answer,
        host: str = LOOPBACK,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listens.

        Args:
            port: 0: the system picks a free one.
            token: that commands need, and elsewhere than on loopback every request.
            answer: called in any thread.
            host: where to listen; elsewhere than on loopback only with TLS.
            tls: of the server; None = plain HTTP.

        Raises:
            OSError: the port is in use.
        """
        assert tls is not None or is_loopback(host), "a token must not travel in the open"

        class Handler(RequestHandler):
            pass

        Handler.token = token.encode()
        Handler.answer = staticmethod(answer)
        Handler.is_elsewhere = not is_loopback(host)
        self._http = LimitedServer(host, port, Handler, tls)
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name="control", daemon=True
        )

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Closes the port; answers that are under way are sent as far as they come."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class LimitedServer(ThreadingHTTPServer):
    """A thread per connection, up to a limit; those beyond it are closed at once."""

    daemon_threads = True

    def __init__(
        self, host: str, port: int, handler: type[RequestHandler], tls: ssl.SSLContext | None
    ) -> None:
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._tls = tls
        self._arriving: dict[socket.socket, float] = {}  # whose request is not complete, since when
        self._lock = threading.Lock()
        self._next_line_s = 0.0
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection, if there is one left."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves one connection."""
        try:
            if self._tls is not None:
                request.settimeout(IDLE_LIMIT_S)
                request = self._tls.wrap_socket(
                    request, server_side=True, do_handshake_on_connect=False
                )
            with self._lock:
                self._arriving[request] = time.monotonic()
            if self._tls is not None:
                request.do_handshake()
        except OSError as error:
            self.note_refusal(client_address, f"no TLS connection: {error}")
            self.shutdown_request(request)
        else:
            super().process_request_thread(request, client_address)
        finally:
            self.has_arrived(request)
            self._free.release()

    def has_arrived(self, request: socket.socket) -> None:
        """Hears that a connection's request is complete, or the connection over."""
        with self._lock:
            self._arriving.pop(request, None)

    def service_actions(self) -> None:
        """Hangs up on those that take too long to say what they want; called every 0.1 s."""
        super().service_actions()
        limit = time.monotonic() - REQUEST_LIMIT_S
        with self._lock:
            late = [request for request, since in self._arriving.items() if since < limit]
            for request in late:
                del self._arriving[request]
                with suppress(OSError):
                    # Not SSLSocket's own, which would make the thread that reads speak plainly.
                    socket.socket.shutdown(request, socket.SHUT_RDWR)

    def note_refusal(self, client_address: Any, why: str) -> None:
        """Writes down who was refused; at most one line per second."""
        now = time.monotonic()
        with self._lock:
            is_silent = now < self._next_line_s
            if not is_silent:
                self._next_line_s = now + 1.0
        if not is_silent:
            logger.warning("The control endpoint refused %s: %s.", client_address[0], why)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Notes a connection that broke; the default would print a trace on the console."""
        logger.debug("control endpoint: a connection broke", exc_info=True)

    def server_bind(self) -> None:
        """Binds without asking a name server who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "ppo-train", self.socket.getsockname()[1]


class RequestHandler(BaseHTTPRequestHandler):
    """One request per connection."""

    server: LimitedServer
    token: bytes
    answer: Answer
    is_elsewhere: bool  # other machines reach it
    timeout = IDLE_LIMIT_S
    server_version = "ppo-train"
    sys_version = ""

    def do_GET(self) -> None:  # the base class asks for this name
        """Answers what anyone on this machine may know, and elsewhere who has the token."""
        self.server.has_arrived(self.connection)
        if not self._is_for_us():
            return
        needs_token = self.is_elsewhere or self.path == TOKEN_IS_RIGHT
        if needs_token and not self._has_token():
            return
        if self.path == TOKEN_IS_RIGHT:
            self._send(Reply.message(200, "The token is right."))
            return
        self._send(self.answer("GET", self.path, {}))

    def do_POST(self) -> None:  # likewise
        """Passes on a command, if its token is right."""
        if not self._is_for_us() or not self._has_token():
            return
        arguments = self._body()
        self.server.has_arrived(self.connection)
        if arguments is not None:
            self._send(self.answer("POST", self.path, arguments))

    def _is_for_us(self) -> bool:
        """Refuses web pages that have had our address put behind a name of their own."""
        if self.is_elsewhere:  # by whatever name; pages do not know the token
            return True
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host in NAMES:
            return True
        self._send(Reply.message(403, f"Host {host!r} is none of {', '.join(sorted(NAMES))}."))
        return False

    def _has_token(self) -> bool:
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if hmac.compare_digest(given, b"Bearer " + self.token):
            return True
        what = "no token was sent" if not given else "the token is wrong"
        self.server.note_refusal(self.client_address, what)
        where = (
            "the token that the run was started with (control_settings.token_file or "
            f"{CONTROL_TOKEN_VARIABLE})"
            if self.is_elsewhere
            else "the token of run_logs/control.json"
        )
        self._send(Reply.message(401, f"Not carried out, {what}: this needs {where}."))
        return False

    def _body(self) -> Mapping[str, object] | None:
        """Reads the JSON mapping of a command; {} without one; None when it was refused."""
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()):
            self._send(Reply.message(400, "Content-Length is no number."))
            return None
        if len(length) > 9 or int(length) > LARGEST_BODY_BYTES:
            self._send(Reply.message(413, f"A command has at most {LARGEST_BODY_BYTES} bytes."))
            return None
        try:
            document = json.loads(self.rfile.read(int(length)) or b"{}")
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            return document
        self._send(Reply.message(400, "The body of a command is a JSON object, such as {}."))
        return None

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        if reply.status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps requests off the console."""
        logger.debug("control endpoint: %s", format % args)
