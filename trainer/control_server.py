"""The HTTP of the control endpoint: loopback only, a token for commands, limits on everything."""

from __future__ import annotations

import hmac
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from trainer.control_client import HOST, TOKEN_IS_RIGHT

logger = logging.getLogger(__name__)

LARGEST_BODY_BYTES = 1 << 16
MOST_CONNECTIONS = 32
IDLE_LIMIT_S = 10.0  # between two bytes of a request
NAMES = {HOST, "localhost"}


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

    def __init__(self, port: int, token: str, answer: Answer) -> None:
        """Listens on loopback.

        Args:
            port: 0: the system picks a free one.
            token: that commands need.
            answer: called in any thread.

        Raises:
            OSError: the port is in use.
        """

        class Handler(RequestHandler):
            pass

        Handler.token = token.encode()
        Handler.answer = staticmethod(answer)
        self._http = LimitedServer((HOST, port), Handler)
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

    def __init__(self, address: tuple[str, int], handler: type[RequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection, if there is one left."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Notes a connection that broke; the default would print a trace on the console."""
        logger.debug("control endpoint: a connection broke", exc_info=True)

    def server_bind(self) -> None:
        """Binds without asking a name server who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]


class RequestHandler(BaseHTTPRequestHandler):
    """One request per connection."""

    token: bytes
    answer: Answer
    timeout = IDLE_LIMIT_S
    server_version = "ppo-train"
    sys_version = ""

    def do_GET(self) -> None:  # the base class asks for this name
        """Answers what anyone on this machine may know."""
        if not self._is_for_us():
            return
        if self.path == TOKEN_IS_RIGHT:
            if self._has_token():
                self._send(Reply.message(200, "The token is right."))
            return
        self._send(self.answer("GET", self.path, {}))

    def do_POST(self) -> None:  # likewise
        """Passes on a command, if its token is right."""
        if not self._is_for_us() or not self._has_token():
            return
        arguments = self._body()
        if arguments is not None:
            self._send(self.answer("POST", self.path, arguments))

    def _is_for_us(self) -> bool:
        """Refuses web pages that have had our address put behind a name of their own."""
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host in NAMES:
            return True
        self._send(Reply.message(403, f"Host {host!r} is none of {', '.join(sorted(NAMES))}."))
        return False

    def _has_token(self) -> bool:
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if hmac.compare_digest(given, b"Bearer " + self.token):
            return True
        self._send(Reply.message(401, "Commands need the token of run_logs/control.json."))
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
