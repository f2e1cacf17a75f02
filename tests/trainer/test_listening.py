"""From settings to doors: certificates that are made and kept, tokens that are read or missed."""

from __future__ import annotations

import datetime
import os
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.hashes import SHA256

from envs.tls import (
    DoorError,
    address_words,
    fingerprint_of_file,
    host_and_port,
    is_every_address,
    is_loopback,
    read_fingerprint,
    read_token,
    server_context,
)
from trainer import certificate
from trainer.certificate import own_pair
from trainer.config.errors import ConfigError
from trainer.config.listen_settings import ControlSettings, ListenSettings
from trainer.listening import control_token, simulator_door

TOKEN = "sixteen-letters-and-more"


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("2130706433", False),  # 127.0.0.1 as one number: better refused than guessed
    ],
)
def test_what_counts_as_this_machine(host: str, found: bool) -> None:
    assert is_loopback(host) is found


def test_addresses_are_read_as_they_are_written() -> None:
    for text, parts in (("a.b:1", ("a.b", 1)), ("[::1]:65535", ("::1", 65535))):
        assert host_and_port(text) == parts
        assert address_words(*parts) == text
    for text in ("a", "a:", ":1", "a:0", "a:65536", "a:1x", "a:²"):
        with pytest.raises(DoorError, match="is no HOST:PORT"):
            host_and_port(text)
    assert is_every_address("::")
    assert not is_every_address("example.org")


def test_token_comes_from_the_file_then_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    assert read_token(file, "T", {"T": "another-token-of-the-environment"}) == TOKEN
    assert read_token(None, "T", {"T": TOKEN}) == TOKEN
    assert read_token(None, "T", {}) is None
    for text in ("", "short", "two words of enough letters", "x" * 513, "not-ascii-äöüäöüäöü"):
        with pytest.raises(DoorError, match="Make one: python -c") as caught:
            read_token(None, "T", {"T": text})
        assert not text or text not in str(caught.value)  # the message ends in logs


def test_own_pair_is_for_its_owner_alone_and_kept(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        first = own_pair(tmp_path / "tls", "0.0.0.0")
    finally:
        os.umask(old)
    for path in first:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    before = fingerprint_of_file(first[0])
    assert own_pair(tmp_path / "tls", "127.0.0.1") == first
    assert fingerprint_of_file(first[0]) == before
    first[1].unlink()  # half a pair is none
    again = own_pair(tmp_path / "tls", "127.0.0.1")
    assert fingerprint_of_file(again[0]) != before
    server_context(*again, ["h2"])


def test_own_pair_that_is_over_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "VALID_DAYS", 1)
    before = fingerprint_of_file(own_pair(tmp_path, "a")[0])
    monkeypatch.setattr(certificate, "VALID_DAYS", 100)
    assert fingerprint_of_file(own_pair(tmp_path, "a")[0]) != before
    found = x509.load_pem_x509_certificate((tmp_path / "cert.pem").read_bytes())
    left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=99) < left < datetime.timedelta(days=101)


def test_fingerprint_is_what_others_compute(tmp_path: Path) -> None:
    path, _ = own_pair(tmp_path, "trainer.example.org")
    found = x509.load_pem_x509_certificate(path.read_bytes())
    expected = found.fingerprint(SHA256()).hex()
    assert fingerprint_of_file(path) == expected
    colons = ":".join(expected[i : i + 2] for i in range(0, 64, 2)).upper()
    assert read_fingerprint(f"SHA256:{colons}") == expected
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "trainer.example.org" in names.get_values_for_type(x509.DNSName)


def test_without_cryptography_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(host: str) -> tuple[bytes, bytes]:
        raise ModuleNotFoundError("No module named 'cryptography'")

    monkeypatch.setattr(certificate, "_make", missing)
    with pytest.raises(ConfigError, match=r"pip install 'ppo-train\[remote\]'"):
        own_pair(tmp_path, "a")


def test_keys_that_cannot_be_used_are_refused_without_asking_for_a_password(tmp_path: Path) -> None:
    path, key = own_pair(tmp_path / "a", "a")
    other, _ = own_pair(tmp_path / "b", "b")
    with pytest.raises(DoorError, match="belong together"):
        server_context(other, key, ["h2"])
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    locked.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, secret))
    with pytest.raises(DoorError, match="protected by a password"):
        server_context(path, locked, ["h2"])
    with pytest.raises(DoorError, match="No such file"):
        server_context(path, tmp_path / "nothing.pem", ["h2"])


def test_door_has_what_the_settings_say(tmp_path: Path) -> None:
    listen = ListenSettings(host="0.0.0.0", tls="generate", handshake_timeout_s=3)
    with pytest.raises(ConfigError, match=r"PPO_TRAIN_TOKEN[.] Make one"):
        simulator_door(listen, tmp_path, {})
    assert not (tmp_path / "tls").exists()  # nothing is made for a run that does not start
    door = simulator_door(listen, tmp_path, {"PPO_TRAIN_TOKEN": TOKEN})
    assert (door.host, door.token, door.handshake_timeout_s) == ("0.0.0.0", TOKEN, 3)
    assert door.fingerprint == fingerprint_of_file(tmp_path / "tls" / "cert.pem")
    assert door.tls.minimum_version is ssl.TLSVersion.TLSv1_3
    given = ListenSettings(
        tls_cert=str(tmp_path / "tls" / "cert.pem"), tls_key=str(tmp_path / "tls" / "key.pem")
    )
    other = simulator_door(given, tmp_path / "other", {"PPO_TRAIN_TOKEN": TOKEN})
    assert other.fingerprint == door.fingerprint
    assert not (tmp_path / "other").exists()


def test_commands_need_a_token_of_the_users_only_elsewhere() -> None:
    assert control_token(ControlSettings(port=0), {}) is None
    assert control_token(ControlSettings(port=0), {"PPO_TRAIN_CONTROL_TOKEN": TOKEN}) == TOKEN
    elsewhere = ControlSettings(port=0, host="0.0.0.0")
    with pytest.raises(ConfigError, match="who may command it"):
        control_token(elsewhere, {})
    # The simulators' token commands nobody.
    with pytest.raises(ConfigError, match="who may command it"):
        control_token(elsewhere, {"PPO_TRAIN_TOKEN": TOKEN})
