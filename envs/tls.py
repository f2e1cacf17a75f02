"""TLS at both ends of a connection, and the token that comes with it; nothing but Python's ssl."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Environment variables that may hold a token: of who dials as a simulator, and of who commands.
TOKEN_VARIABLE = "PPO_TRAIN_TOKEN"
CONTROL_TOKEN_VARIABLE = "PPO_TRAIN_CONTROL_TOKEN"
SHORTEST_TOKEN, LONGEST_TOKEN = 16, 512
TOKEN = re.compile(r"[!-~]+")  # visible ASCII: what a header may carry without quotes
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
HOW_TO_MAKE_A_TOKEN = (
    'python -c "import secrets; print(secrets.token_urlsafe(32))" > token.txt; chmod 600 token.txt'
)


class DoorError(Exception):
    """A certificate, key, token or address that cannot be used; complete for the user."""


def is_loopback(host: str) -> bool:
    """Tells whether only this machine reaches `host`; a name other than localhost counts as no."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_every_address(host: str) -> bool:
    """Tells whether `host` means all addresses of this machine, which nobody can dial."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def host_and_port(text: str) -> tuple[str, int]:
    """Takes `HOST:PORT` or `[IPv6]:PORT` apart.

    Raises:
        DoorError: it is neither.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) < 1 << 16:
        raise DoorError(f"{text!r} is no HOST:PORT; expected such as trainer.example.org:5004.")
    return host, int(port)


def address_words(host: str, port: int) -> str:
    """Writes an address as `host_and_port` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_token(file: str | Path | None, variable: str, environ: Mapping[str, str]) -> str | None:
    """Gives the token from a file, or without one from an environment variable; None: neither.

    Raises:
        DoorError: the file cannot be read, or what is there is no token.
    """
    if file is not None:
        source = str(file)
        try:
            text = Path(file).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise DoorError(
                f"The token file {source} cannot be read: {_reason(error)}. Make one: "
                f"{HOW_TO_MAKE_A_TOKEN}"
            ) from None
    elif variable in environ:
        source, text = f"The environment variable {variable}", environ[variable]
    else:
        return None
    token = text.strip()
    if not TOKEN.fullmatch(token) or not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
        raise DoorError(
            f"{source} holds no token: {len(token)} characters found; expected {SHORTEST_TOKEN} to "
            f"{LONGEST_TOKEN} visible ASCII characters without spaces. Make one: "
            f"{HOW_TO_MAKE_A_TOKEN}"
        )
    return token


def server_context(certificate: Path, key: Path, protocols: list[str]) -> ssl.SSLContext:
    """Gives what a server speaks TLS 1.3 with.

    Args:
        certificate: PEM file; further certificates of the chain may follow the server's own.
        key: PEM file of its private key, without a password.
        protocols: for ALPN, such as h2.

    Raises:
        DoorError: the files cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(protocols)
    context.num_tickets = 0  # sessions are long, and nobody resumes one
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise DoorError(
            f"TLS cannot use the certificate {certificate} with the key {key}: {_reason(error)}. "
            f"Expected PEM files that belong together, the key without a password."
        ) from None
    return context


def fingerprint(der: bytes) -> str:
    """Gives the SHA-256 fingerprint of a certificate, 64 hexadecimal digits."""
    return hashlib.sha256(der).hexdigest()


def fingerprint_of_file(certificate: Path) -> str:
    """Gives the fingerprint of the first certificate of a PEM file.

    Raises:
        DoorError: there is none.
    """
    try:
        text = certificate.read_text(encoding="ascii")
        end = "-----END CERTIFICATE-----"
        first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
        return fingerprint(ssl.PEM_cert_to_DER_cert(first))
    except (OSError, ValueError) as error:
        raise DoorError(
            f"{certificate} holds no certificate in PEM form: {_reason(error)}."
        ) from None


@dataclass(frozen=True, slots=True)
class Trust:
    """How a client knows that it talks to the right server."""

    ca_file: str | None = None  # PEM: an authority's certificate, or the server's own
    fingerprint: str | None = None  # of the server's certificate; nothing else counts then

    def wrap(self, wire: socket.socket, host: str, protocol: str) -> ssl.SSLSocket:
        """Makes a connected socket speak TLS 1.3; waits as long as the socket's timeout allows.

        With neither file nor fingerprint the authorities that this machine trusts count. Nothing
        but the handshake has been sent when the server turns out to be another one.

        Raises:
            DoorError: no TLS there, or not the server that is meant.
            TimeoutError: it does not answer in time.
        """
        context = self._context(protocol)
        try:
            tls = context.wrap_socket(wire, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise DoorError(
                f"{host} has a certificate that is not trusted here: {error.verify_message}. Pass "
                f"the fingerprint that the trainer printed (--tls-fingerprint), or the authority's "
                f"certificate (--tls-ca)."
            ) from None
        except TimeoutError:
            raise
        except OSError as error:
            raise DoorError(
                f"{host} does not speak TLS 1.3 there ({_reason(error)}). Is it a trainer that "
                f"listens with listen_settings.tls, and is this its port?"
            ) from None
        if self.fingerprint is not None:
            found = fingerprint(tls.getpeercert(binary_form=True) or b"")
            if found != self.fingerprint:
                tls.close()
                raise DoorError(
                    f"{host} shows a certificate with the fingerprint {found}; expected "
                    f"{self.fingerprint}. Another program listens there, or the trainer has a new "
                    f"certificate: compare with the fingerprint that it printed."
                )
        if tls.selected_alpn_protocol() != protocol:
            tls.close()
            raise DoorError(f"{host} speaks TLS, but not {protocol}: this is no trainer's port.")
        return tls

    def _context(self, protocol: str) -> ssl.SSLContext:
        if self.fingerprint is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False  # the fingerprint is compared instead, see `wrap`
            context.verify_mode = ssl.CERT_NONE
        else:
            try:
                context = ssl.create_default_context(cafile=self.ca_file)
            except OSError as error:
                raise DoorError(
                    f"{self.ca_file} cannot be used as an authority's certificate: "
                    f"{_reason(error)}. Expected a PEM file."
                ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols([protocol])
        return context


def read_fingerprint(text: str) -> str:
    """Reads a fingerprint as programs print it: colons, spaces and case do not matter.

    Raises:
        DoorError: it is not 64 hexadecimal digits.
    """
    digits = re.sub(r"[:\s]", "", text).lower().removeprefix("sha256")
    if not FINGERPRINT.fullmatch(digits):
        raise DoorError(
            f"{text!r} is no fingerprint; expected the 64 hexadecimal digits (SHA-256) that the "
            f"trainer printed."
        )
    return digits


def _no_password() -> str:
    raise ValueError("the key is protected by a password, which nobody is here to type")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
