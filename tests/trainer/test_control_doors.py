"""The control endpoint where other machines reach it: TLS, a token for everything, a time limit."""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from envs.tls import DoorError
from trainer import control_server
from trainer.cli.main import main
from trainer.config.listen_settings import ControlSettings, ListenSettings
from trainer.control import Control
from trainer.control_client import Address, CommandError, command, live_address, read_address

TOKEN = "a-token-of-commands"
PATIENCE_S = 20.0


@pytest.fixture
def control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Control]:
    """An endpoint on loopback that takes everybody for somebody elsewhere."""
    monkeypatch.setattr(control_server, "is_loopback", lambda host: False)
    (tmp_path / "token").write_text(TOKEN)
    settings = ControlSettings(port=0, token_file=str(tmp_path / "token"))
    listen = ListenSettings(tls="generate")
    with Control(settings, "run", tmp_path / "run" / "run_logs", listen) as control:
        yield control


def address_of(tmp_path: Path) -> Address:
    address = read_address(tmp_path / "run" / "run_logs" / "control.json")
    assert address is not None
    return address


def with_token(address: Address, token: str) -> Address:
    return Address("run", 0, address.port, token, address.host, address.fingerprint)


def test_own_machine_finds_it_by_its_certificate(control: Control, tmp_path: Path) -> None:
    address = address_of(tmp_path)
    assert address.token == TOKEN
    assert address.fingerprint is not None
    assert live_address(tmp_path / "run") == address
    assert "it starts" in command(address, "status", {})
    key = tmp_path / "run" / "run_logs" / "tls" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/token", "/commands/status", "/nothing"])
@pytest.mark.parametrize("token", ["", "another-token-of-commands", TOKEN[:-1], TOKEN + "x"])
def test_nothing_is_said_without_the_token(
    control: Control, tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, token: str
) -> None:
    address = with_token(address_of(tmp_path), token)
    for method in ("GET", "POST"):
        status, body = address.request(method, path, {}, timeout_s=PATIENCE_S)
        assert status == 401
        assert "PPO_TRAIN_CONTROL_TOKEN" in json.loads(body)["message"]
    assert "The control endpoint refused 127.0.0.1: " in caplog.text


def test_everything_is_said_with_the_token(control: Control, tmp_path: Path) -> None:
    address = address_of(tmp_path)
    assert address.request("GET", "/healthz", timeout_s=PATIENCE_S)[0] == 200
    status, body = address.request("GET", "/metrics", timeout_s=PATIENCE_S)
    assert (status, "ppo_train" in body) == (200, True)


def test_who_does_not_speak_tls_gets_nothing(
    control: Control, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = HTTPConnection("127.0.0.1", address_of(tmp_path).port, timeout=PATIENCE_S)
    with pytest.raises((OSError, HTTPException)):
        plain.request("GET", "/healthz", headers={"Authorization": f"Bearer {TOKEN}"})
        plain.getresponse()
    assert "no TLS connection" in caplog.text


def test_client_does_not_send_its_token_to_a_stranger(control: Control, tmp_path: Path) -> None:
    address = address_of(tmp_path)
    other = Address("run", 1, address.port, TOKEN, "127.0.0.1", "0" * 64)
    with pytest.raises(CommandError, match="expected 0000"):
        command(other, "status", {})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        other = Address("run", 1, port, TOKEN, "127.0.0.1", "0" * 64)
        listener.settimeout(PATIENCE_S)
        with pytest.raises((OSError, DoorError)):
            other.request("GET", "/token", timeout_s=1.0)
        wire, _ = listener.accept()
        assert TOKEN.encode() not in wire.recv(1 << 16)
        wire.close()


def test_slow_requests_and_half_handshakes_are_ended(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "REQUEST_LIMIT_S", 1.0)
    port = address_of(tmp_path).port
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
    for wire in crowd:
        wire.settimeout(PATIENCE_S)
        wire.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert "it starts" in command(address_of(tmp_path), "status", {})  # nobody else waits
    began = time.monotonic()
    for wire in crowd:
        assert not wire.recv(1)
    assert time.monotonic() - began < control_server.IDLE_LIMIT_S


def test_drip_of_bytes_does_not_hold_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "REQUEST_LIMIT_S", 1.0)
    with Control(ControlSettings(port=0), "run", tmp_path) as control:
        assert control.port is not None
        wire = socket.create_connection(("127.0.0.1", control.port))
        wire.settimeout(0.2)
        limit = time.monotonic() + control_server.IDLE_LIMIT_S
        with pytest.raises(OSError):  # a reset, or a broken pipe
            while time.monotonic() < limit:
                wire.sendall(b"G")
                try:
                    if not wire.recv(1):
                        raise ConnectionResetError
                except TimeoutError:
                    continue
        wire.close()
        assert time.monotonic() < limit


@pytest.mark.parametrize("trust", ["--tls-fingerprint", "--tls-ca"])
def test_verbs_reach_another_machine(
    control: Control,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trust: str,
) -> None:
    address = address_of(tmp_path)
    assert address.fingerprint is not None
    value = address.fingerprint
    if trust == "--tls-ca":
        value = str(tmp_path / "run" / "run_logs" / "tls" / "cert.pem")
        monkeypatch.setattr("trainer.control_client.is_loopback", lambda host: False)
    words = ["status", "--address", f"127.0.0.1:{address.port}", trust, value]
    monkeypatch.delenv("PPO_TRAIN_CONTROL_TOKEN", raising=False)
    assert main(words) == 2
    assert "--token-file FILE, or the environment variable PPO_TRAIN" in capsys.readouterr().err
    monkeypatch.setenv("PPO_TRAIN_CONTROL_TOKEN", "not-the-token-of-it")
    assert main(words) == 2
    assert "the token is wrong" in capsys.readouterr().err
    assert main([*words, "--token-file", str(tmp_path / "token")]) == 0
    assert "it starts" in capsys.readouterr().out


def test_arguments_for_another_machine_are_refused_for_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["status", "--run-id", "run", "--tls-ca", "f", "--results-dir", str(tmp_path)]
    assert main(words) == 2
    assert "--tls-ca is for another machine's run" in capsys.readouterr().err


def test_plain_endpoint_is_never_opened_elsewhere() -> None:
    answer: Callable[..., control_server.Reply] = lambda *_: control_server.Reply(200, b"")  # noqa: E731
    with pytest.raises(AssertionError):
        control_server.ControlServer(0, TOKEN, answer, "0.0.0.0")
