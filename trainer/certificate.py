"""A certificate and key of a run's own, for who has no authority to ask for one.

The certificate is signed by its own key; what makes it trustworthy is its fingerprint, which the
trainer prints and the user passes on, or the file itself.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from envs.tls import LOOPBACK, fingerprint_of_file, is_every_address
from trainer.atomic_file import atomic_path
from trainer.config.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateBuilder, GeneralName

CERTIFICATE, KEY = "cert.pem", "key.pem"
OWNER_ONLY, OWNER_ONLY_FOLDER = 0o600, 0o700
VALID_DAYS = 3650
CLOCKS_DIFFER_BY = datetime.timedelta(days=1)


def own_pair(folder: Path, host: str) -> tuple[Path, Path]:
    """Gives a certificate and its key in `folder`, which makes them the first time.

    They are kept, so that simulators which know the fingerprint find a resumed run again.

    Args:
        folder: of the pair alone; readable by its owner only.
        host: where the run listens.

    Raises:
        ConfigError: the package cryptography is not installed.
    """
    certificate, key = folder / CERTIFICATE, folder / KEY
    if certificate.is_file() and key.is_file() and not _is_over(certificate):
        return certificate, key
    try:
        texts = _make(host)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"listen_settings.tls is generate, which needs the package cryptography ({error}). "
            f"Install it: pip install 'ppo-train[remote]', or set tls_cert and tls_key."
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(OWNER_ONLY_FOLDER)
    for path, text in zip((key, certificate), texts, strict=True):
        with atomic_path(path) as partial:
            partial.unlink(missing_ok=True)  # a killed writer may have left one with other rights
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
            with open(descriptor, "wb") as file:
                file.write(text)
    return certificate, key


def _is_over(certificate: Path) -> bool:
    """Tells whether a certificate of ours is no longer valid, or cannot be read."""
    from cryptography import x509

    try:
        fingerprint_of_file(certificate)
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (ValueError, OSError, ssl.SSLError):
        return True
    return found.not_valid_after_utc < datetime.datetime.now(datetime.UTC) + CLOCKS_DIFFER_BY


def _make(host: str) -> tuple[bytes, bytes]:
    """Gives a new key and its certificate, both in PEM form."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    certificate: Certificate = _described(host, key.public_key()).sign(key, hashes.SHA256())
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )


def _described(host: str, public_key: object) -> CertificateBuilder:
    """Says in a certificate, still unsigned, whose it is and what it may be used for."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ppo-train")])
    now = datetime.datetime.now(datetime.UTC)
    key_id = x509.SubjectKeyIdentifier.from_public_key(public_key)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,  # its own
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=public_key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - CLOCKS_DIFFER_BY,
        not_valid_after=now + datetime.timedelta(days=VALID_DAYS),
    )
    return (
        builder.add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(key_id, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False
        )
    )


def _names(host: str) -> list[GeneralName]:
    """Gives what this machine may be dialled as, as far as it knows."""
    from cryptography import x509

    found = ["localhost", LOOPBACK, "::1", socket.gethostname()]
    if not is_every_address(host):
        found.insert(0, host)
    with suppress(OSError):  # a machine that does not know its own name has no more
        infos = socket.getaddrinfo(socket.gethostname(), None)
        found += [str(info[4][0]).partition("%")[0] for info in infos]
    names: list[GeneralName] = []
    for text in dict.fromkeys(found):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            if text.isascii():
                names.append(x509.DNSName(text))
    return names
