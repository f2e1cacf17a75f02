"""From settings to doors: certificates, keys and tokens, or why a run does not start."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envs.bridge.guarded_server import Door
from envs.tls import (
    CONTROL_TOKEN_VARIABLE,
    HOW_TO_MAKE_A_TOKEN,
    TOKEN_VARIABLE,
    DoorError,
    fingerprint_of_file,
    read_token,
    server_context,
)
from trainer.certificate import own_pair
from trainer.config.errors import ConfigError
from trainer.config.listen_settings import ControlSettings, ListenSettings

TLS_FOLDER = "tls"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server shows to who dials it."""

    tls: ssl.SSLContext
    fingerprint: str  # of the certificate


def simulator_door(
    listen: ListenSettings, logs_dir: Path, environ: Mapping[str, str] | None = None
) -> Door:
    """Gives the door for simulators of other machines.

    Args:
        listen: settings that ask for one.
        logs_dir: a generated pair lies in its folder `tls`.
        environ: where the token may be; None = of this process.

    Raises:
        ConfigError: certificate, key or token are missing, or cannot be used.
    """
    token = _token(listen.token_file, TOKEN_VARIABLE, environ)
    if token is None:
        raise ConfigError(
            f"Simulators of other machines are waited for (listen_settings), and nothing says who "
            f"may come: a token is needed beside TLS. Set listen_settings.token_file "
            f"(--token-file), or {TOKEN_VARIABLE}. Make one: {HOW_TO_MAKE_A_TOKEN}"
        )
    identity = identity_of(listen, logs_dir, listen.host, "h2")
    return Door(
        tls=identity.tls,
        token=token,
        host=listen.host,
        handshake_timeout_s=listen.handshake_timeout_s,
        fingerprint=identity.fingerprint,
    )


def control_token(control: ControlSettings, environ: Mapping[str, str] | None = None) -> str | None:
    """Gives the token of commands; None: this start may draw one, as it listens on loopback.

    Raises:
        ConfigError: others reach the endpoint and there is no token; or it cannot be used.
    """
    token = _token(control.token_file, CONTROL_TOKEN_VARIABLE, environ)
    if token is None and control.is_elsewhere:
        raise ConfigError(
            f"control_settings.host is {control.host}, where other machines reach the run, and "
            f"nothing says who may command it: a token is needed beside TLS. Set "
            f"control_settings.token_file (--control-token-file), or {CONTROL_TOKEN_VARIABLE}. "
            f"Make one: {HOW_TO_MAKE_A_TOKEN}"
        )
    return token


def identity_of(listen: ListenSettings, logs_dir: Path, host: str, protocol: str) -> Identity:
    """Gives certificate and key, which are made if the settings say so.

    Raises:
        ConfigError: they cannot be used.
    """
    if listen.tls_cert is not None and listen.tls_key is not None:
        certificate, key = Path(listen.tls_cert), Path(listen.tls_key)
    else:
        certificate, key = own_pair(logs_dir / TLS_FOLDER, host)
    try:
        context = server_context(certificate, key, [protocol])
        return Identity(context, fingerprint_of_file(certificate))
    except DoorError as error:
        raise ConfigError(str(error)) from error


def _token(file: str | None, variable: str, environ: Mapping[str, str] | None) -> str | None:
    try:
        return read_token(file, variable, os.environ if environ is None else environ)
    except DoorError as error:
        raise ConfigError(str(error)) from error
