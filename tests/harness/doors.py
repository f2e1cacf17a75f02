"""Certificates, keys and tokens for tests that dial through a door."""

from __future__ import annotations

from pathlib import Path

import grpc

from envs.bridge.guarded_server import Door
from envs.bridge.protocol import EXCHANGE
from envs.tls import fingerprint_of_file, server_context
from trainer.certificate import own_pair

TOKEN = "a-token-that-nobody-guesses"
OTHER_TOKEN = "a-token-that-somebody-guessed"


def door(folder: Path, handshake_timeout_s: float = 20.0) -> Door:
    """A door on loopback with a certificate of its own, `folder`/cert.pem."""
    certificate, key = own_pair(folder, "127.0.0.1")
    return Door(
        tls=server_context(certificate, key, ["h2"]),
        token=TOKEN,
        handshake_timeout_s=handshake_timeout_s,
        fingerprint=fingerprint_of_file(certificate),
    )


class SecureClient:
    """Dials a port with grpcio's own client, TLS and metadata."""

    def __init__(self, port: int, certificate: Path) -> None:
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.secure_channel(f"127.0.0.1:{port}", trusted, options=options)
        self._exchange: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            EXCHANGE
        )
        self._futures: list[grpc.Future[bytes]] = []  # gRPC cancels a call that nobody holds

    def send(self, data: bytes, authorization: str | None) -> grpc.Future[bytes]:
        metadata = () if authorization is None else (("authorization", authorization),)
        future = self._exchange.future(data, timeout=30, metadata=metadata)
        self._futures.append(future)
        return future

    def close(self) -> None:
        self._channel.close()
