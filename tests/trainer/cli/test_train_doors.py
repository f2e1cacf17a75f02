"""Runs that other machines reach, and runs that refuse to be reached: whole processes over TLS."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trainer_process import ROOT, Trainer, run_events, tiny_build, tiny_yaml

TOKEN = "the-token-of-this-test"


def free_ports(count: int) -> int:
    """Gives the first of some ports in a row that nobody listens on."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first: int = probe.getsockname()[1]
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first


def agent(*words: object, token: str | None = None) -> subprocess.Popen[str]:
    """Starts a simulator agent as its user does on another machine."""
    environ = {name: value for name, value in os.environ.items() if name != "PPO_TRAIN_TOKEN"}
    if token is not None:
        environ["PPO_TRAIN_TOKEN"] = token
    return subprocess.Popen(
        [sys.executable, "-m", "envs.gym", "--env", "CartPole-v1", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environ,
    )


def test_simulators_of_other_machines_train_a_run(tmp_path: Path) -> None:
    tiny_yaml(tmp_path, "CartPole", max_steps=600, summary_freq=200)
    (tmp_path / "token.txt").write_text(f"{TOKEN}\n")
    port = free_ports(2)
    listening = ("--host", "127.0.0.1", "--tls", "generate", "--token-file", "token.txt")
    words = ("settings.yaml", "--run-id", "run", "--num-envs", 2, "--base-port", port)
    with Trainer(*words, *listening, cwd=tmp_path) as trainer:
        shown = trainer.wait_for(r"--tls-fingerprint ([0-9a-f]{64})")[1]
        trust = ("--tls-fingerprint", shown)
        guess = agent("--trainer", f"127.0.0.1:{port}", *trust, token="a-guess-of-sixteen")
        said, _ = guess.communicate(timeout=60)
        assert guess.returncode == 2
        assert f"127.0.0.1:{port} does not let us in: The token that was sent is not" in said
        trainer.wait_for(rf"Port {port} refused 127\.0\.0\.1:\d+: its token is wrong\.")
        own = ("--token-file", tmp_path / "token.txt")
        agents = [
            agent("--trainer", f"127.0.0.1:{port}", *trust, *own),
            agent("--trainer", f"127.0.0.1:{port + 1}", *trust, token=TOKEN),
        ]
        assert trainer.wait() == 0
        for each in agents:
            each.communicate(timeout=60)
            assert each.returncode == 0
    run = tmp_path / "results" / "run"
    key = run / "run_logs" / "tls" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    simulators = {event["simulator"] for event in run_events(run) if event["event"] == "connected"}
    assert simulators == {0, 1}
    assert (run / "CartPole.onnx").is_file()
    everything = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content for content in everything)
    assert TOKEN not in trainer.output


LISTEN_WORDS = (
    "needs TLS (tls: generate, or tls_cert and tls_key below listen_settings) and a token"
)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--host", "0.0.0.0"), LISTEN_WORDS),
        (("--host", "trainer.example.org"), LISTEN_WORDS),
        (("--host", "0.0.0.0", "--token-file", "token.txt"), LISTEN_WORDS),
        (("--token-file", "token.txt"), LISTEN_WORDS),
        (("--host", "0.0.0.0", "--tls", "generate"), "a token is needed beside TLS"),
        (("--tls", "generate"), "a token is needed beside TLS"),
        (("--host", "0.0.0.0", "--tls", "generate", "--token-file", "no.txt"), "cannot be read"),
        (("--host", "0.0.0.0", "--tls", "generate", "--token-file", "short.txt"), "no token: 5"),
        (("--tls-cert", "token.txt"), "tls_cert is set, but tls_key is not"),
        (
            ("--tls-cert", "token.txt", "--tls-key", "token.txt", "--token-file", "token.txt"),
            "TLS cannot use the certificate token.txt with the key token.txt",
        ),
        (("--tls", "gnerate"), "Did you mean 'generate'?"),
        (("--host", "0.0.0.0", "--env", "tiny.x86_64"), "leave host out, or leave env_path out"),
        (("--tls", "generate", "--env", "tiny.x86_64"), "nothing would use it"),
        (("--control-host", "0.0.0.0"), "port is not set, so nothing listens"),
        (
            ("--env", "tiny.x86_64", "--control-host", "0.0.0.0", "--control", "0"),
            "control_settings.host is 0.0.0.0, but there is no TLS",
        ),
        (
            (
                *("--env", "tiny.x86_64", "--control-host", "0.0.0.0", "--control", "0"),
                *("--tls", "generate"),
            ),
            "nothing says who may command it: a token is needed beside TLS",
        ),
    ],
)
def test_run_that_would_stand_open_does_not_start(
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.delenv("PPO_TRAIN_TOKEN", raising=False)
    opened: list[object] = []
    monkeypatch.setattr(socket, "create_server", lambda *given, **_: opened.append(given))
    monkeypatch.setattr("trainer.control_server.LimitedServer", lambda *given: opened.append(given))
    tiny_yaml(tmp_path)
    tiny_build(tmp_path)
    (tmp_path / "token.txt").write_text(TOKEN)
    (tmp_path / "short.txt").write_text("short")
    assert said in refused("train", "settings.yaml", *words, cwd=tmp_path)  # exit code 2
    assert not opened


def test_agent_without_what_it_needs_says_so_at_once() -> None:
    for words, token, said in (
        (("--trainer", "10.0.0.1:5004"), None, "needs the token that the trainer was started with"),
        (("--trainer", "10.0.0.1"), None, "'10.0.0.1' is no HOST:PORT"),
        (("--trainer", "h:1", "--tls-fingerprint", "12"), TOKEN, "'12' is no fingerprint"),
        (("--mlagents-port", 1, "--tls-ca", "f"), None, "--tls-ca is for a trainer elsewhere"),
        (("--trainer", "h:1", "--mlagents-port", 1), None, "not allowed with"),
        ((), None, "one of the arguments --mlagents-port --trainer is required"),
    ):
        process = agent(*words, token=token)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert said in output
        assert "Traceback" not in output
