"""Where a run listens for simulators and commands, and how that is guarded elsewhere than here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import model_validator

from envs.tls import LOOPBACK, is_loopback
from trainer.config.model import Settings
from trainer.config.values import Positive, Range, Text, Words, contradiction

if TYPE_CHECKING:
    from trainer.config.settings import RunSettings

LARGEST_PORT = 65535
BOTH = (
    "Listening elsewhere than on loopback needs TLS (tls: generate, or tls_cert and tls_key below "
    "listen_settings) and a token"
)


def is_host(text: str) -> bool:
    """Tells whether a text may be a name or address to listen on."""
    return not any(letter.isspace() or letter in "/[]@" for letter in text)


Host = Annotated[str, Text("an address of this machine, such as 127.0.0.1 or 0.0.0.0", is_host)]


class ListenSettings(Settings):
    """Where simulators dial that the trainer did not start; those it starts stay on 127.0.0.1."""

    host: Host = LOOPBACK
    """(ours) Address to listen on; 0.0.0.0: every one of this machine. Elsewhere than on loopback
    TLS and a token are needed, and Unity needs a tunnel."""

    tls: Literal["generate"] | None = None
    """(ours) generate: a certificate and key are made for the run, in run_logs/tls, and kept."""

    tls_cert: Words | None = None
    """(ours) File with a certificate (PEM), and those of its chain behind it."""

    tls_key: Words | None = None
    """(ours) File with its private key (PEM), without a password."""

    token_file: Words | None = None
    """(ours) File with the token that simulators have to send. Null: the environment variable
    PPO_TRAIN_TOKEN."""

    handshake_timeout_s: Positive = 10.0
    """(ours) Seconds from dialling to the first call with the token."""

    @property
    def has_tls(self) -> bool:
        """Whether there is a certificate, given or to be made."""
        return self.tls is not None or self.tls_cert is not None

    @property
    def is_guarded(self) -> bool:
        """Whether simulators need TLS and a token."""
        return self.has_tls or self.token_file is not None or not is_loopback(self.host)


class ControlSettings(Settings):
    """The control and health endpoint of the run; off unless a port is given."""

    port: Annotated[int, Range(at_least=0, at_most=LARGEST_PORT)] | None = None
    """(ours) Where `ppo-train status`, `pause` and the like, and Prometheus, reach the run. 0: the
    system picks a free one, see run_logs/control.json. Null: nothing listens."""

    host: Host = LOOPBACK
    """(ours) Address to listen on. Elsewhere than on loopback every request needs the token, and
    TLS with the certificate of listen_settings."""

    token_file: Words | None = None
    """(ours) File with the token of commands. Null: the environment variable
    PPO_TRAIN_CONTROL_TOKEN, or on loopback a token of this start, see run_logs/control.json."""

    health_port: Annotated[int, Range(at_least=0, at_most=LARGEST_PORT)] | None = None
    """(ours) Where gRPC's standard health service answers, with reflection; needs port, and
    ppo-train[grpc]. 0: the system picks a free one, see `ppo-train status`. Null: nothing."""

    stall_limit_s: Positive = 60.0
    """(ours) Seconds without a turn of the run's loop after which /healthz says 503; an update or a
    checkpoint may take an hour."""

    @model_validator(mode="after")
    def _health_is_of_an_endpoint(self) -> ControlSettings:
        if self.health_port is not None and self.port is None:
            raise contradiction(
                f"health_port is {self.health_port}, but port is null, so the run has no control "
                "endpoint. Set port too (or --control), or leave health_port out",
                "health_port",
                "port",
            )
        return self

    @property
    def is_elsewhere(self) -> bool:
        """Whether other machines reach it."""
        return not is_loopback(self.host)


def require_closed_doors(settings: RunSettings) -> None:
    """Raises a contradiction when a run would listen without protection, or guard no port.

    That a token is there at all can only be seen at the start: it may be an environment variable.
    """
    _require_certificate(settings.listen_settings)
    if settings.env_settings.env_path is None:
        _require_closed_ports(settings)
    else:
        _require_no_guests(settings)
    _require_closed_control(settings)


def _require_certificate(listen: ListenSettings) -> None:
    """Raises a contradiction unless there is a whole certificate, or none."""
    if (listen.tls_cert is None) != (listen.tls_key is None):
        there, missing = ("cert", "key") if listen.tls_key is None else ("key", "cert")
        raise contradiction(
            f"listen_settings.tls_{there} is set, but tls_{missing} is not. Set both, or "
            "tls: generate alone",
            f"listen_settings.tls_{there}",
        )
    if listen.tls is not None and listen.tls_cert is not None:
        raise contradiction(
            f"listen_settings.tls is {listen.tls}, but tls_cert names a certificate. Leave one of "
            "them out",
            "listen_settings.tls",
            "listen_settings.tls_cert",
        )


def _require_closed_ports(settings: RunSettings) -> None:
    """Simulators are waited for: by one Editor on loopback, or behind TLS."""
    listen, env = settings.listen_settings, settings.env_settings
    if listen.is_guarded and not listen.has_tls:
        name = "token_file" if is_loopback(listen.host) else "host"
        raise contradiction(
            f"listen_settings.{name} is {getattr(listen, name)}, but there is no TLS. {BOTH}: add "
            f"tls, or leave {name} out",
            f"listen_settings.{name}",
        )
    if env.is_counted:
        raise contradiction(
            "env_settings.num_envs is auto, but env_path is not set. auto starts and ends "
            "simulators as it measures, and only those of env_path are started here (one Unity "
            "Editor is all there can be, and other machines start their own): set env_path (or "
            "--env), or num_envs to a number",
            "env_settings.num_envs",
            "env_settings.env_path",
        )
    if env.least_envs > 1 and not listen.is_guarded:
        raise contradiction(
            f"env_settings.num_envs is {env.num_envs}, but env_path is not set. Without env_path "
            "one Unity Editor is waited for: set env_path (or --env), or num_envs to 1",
            "env_settings.num_envs",
            "env_settings.env_path",
        )


def _require_no_guests(settings: RunSettings) -> None:
    """Simulators are started here: nothing may be said about those of other machines."""
    listen, env = settings.listen_settings, settings.env_settings
    host = None if is_loopback(listen.host) else listen.host
    for name, value in (("host", host), ("token_file", listen.token_file)):
        if value is not None:
            raise contradiction(
                f"listen_settings.{name} is {value}, but env_settings.env_path is "
                f"{env.env_path!r}. Simulators that the trainer starts dial 127.0.0.1 without a "
                f"token: leave {name} out, or leave env_path out and start them elsewhere (python "
                "-m envs.gym --trainer HOST:PORT)",
                f"listen_settings.{name}",
                "env_settings.env_path",
            )
    if listen.has_tls and settings.control_settings.port is None:
        name = "tls" if listen.tls is not None else "tls_cert"
        raise contradiction(
            f"listen_settings.{name} is set, but nothing would use it: simulators that the trainer "
            "starts dial 127.0.0.1 without TLS, and control_settings.port is not set. Leave it out",
            f"listen_settings.{name}",
            "control_settings.port",
        )


def _require_closed_control(settings: RunSettings) -> None:
    """The control endpoint listens, with TLS where others reach it; or nothing is said of it."""
    listen, control = settings.listen_settings, settings.control_settings
    if control.port is None:
        for name, value in (("host", control.host), ("token_file", control.token_file)):
            if value not in (None, LOOPBACK):
                raise contradiction(
                    f"control_settings.{name} is {value}, but port is not set, so nothing listens. "
                    f"Set port (or --control), or leave {name} out",
                    f"control_settings.{name}",
                    "control_settings.port",
                )
    elif control.is_elsewhere and not listen.has_tls:
        raise contradiction(
            f"control_settings.host is {control.host}, but there is no TLS. {BOTH}: add tls to "
            "listen_settings, or leave host out",
            "control_settings.host",
        )
