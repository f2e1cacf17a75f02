"""The worst inputs against a real run: each costs the life of a simulator, and nothing else."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from pathlib import Path

from bombs import BEHAVIOR, BOMBS, agent, first_message
from fuzz_targets import LONGEST_WORDS
from trainer_process import Trainer, checkpoint, run_events, tiny_yaml

from envs.bridge.http2 import PREFACE, frame
from envs.bridge.proto.communicator_pb2 import UnityMessageProto

# What a restart would not change: then a simulator is given up.
FINAL = ("camera of 60000 x 60000", "fewer than no actions")
NUM_LIVES = 6  # of a simulator that spoils what it has played
NUM_FINAL = len(FINAL) + 1  # and a greeting of another protocol


def greeting(version: str) -> bytes:
    message = UnityMessageProto()
    message.header.status = 200
    message.unity_output.rl_initialization_output.communication_version = version
    return message.SerializeToString()


def inputs() -> dict[str, bytes]:
    """Gives the worst inputs by the name of the file that the simulator is to take."""
    found = {
        f"message-{name.replace(' ', '-')}": make()[1:]
        for name, (target, make, outcome) in BOMBS.items()
        if target == "first" and (outcome == "BadDataError" or name in FINAL)
    }
    for name in ("//[", "A?team=x", "../../x", "A?team=99999999999999999999", "a\nb"):
        key = f"message-name-{name.encode().hex()}"
        found[key] = first_message(agent(), behavior_id=name)[1:]
    found["message-behaviour-without-settings"] = first_message(agent(), behavior_id=BEHAVIOR)[1:]
    found["message-nothing"] = b""
    found["greeting-no-digits"] = greeting("\u0661.\u0665")
    found["bytes-http1"] = b"GET / HTTP/1.1\r\n\r\n"
    found["bytes-frames"] = PREFACE + frame(1, 4, 1, b"\xff" * 40)
    return found


def test_run_goes_on_whatever_another_simulator_sends(tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    worst = inputs()
    for name, data in worst.items():
        (folder / f"{name}.bin").write_bytes(data)
    program = Path(__file__).parent / "spoilt_simulator.py"
    command = shlex.join([sys.executable, str(program), "--inputs", str(folder)])
    build = tmp_path / "spoilt.x86_64"
    build.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    build.chmod(0o755)
    settings = tiny_yaml(tmp_path, name="Scripted", max_steps=100_000_000, summary_freq=500)
    limits = "{max_lifetime_restarts: -1, restarts_rate_limit_n: -1, restart_delay_s: 0}"
    settings.write_text(settings.read_text() + f"env_settings: {limits}\n")
    # One is good, one is started again and again, the others are given up.
    words = ("settings.yaml", "--env", build, "--num-envs", 2 + NUM_FINAL)
    with Trainer(*words, cwd=tmp_path) as trainer:
        trainer.wait_for(rf"(?s)(?:(?:Restarting \(\d+\)|Given up:).*?){{{len(worst)}}}")
        step = int(re.findall(r"Scripted\. Step: (\d+)\. ", trainer.output)[-1])
        trainer.wait_for(rf"Scripted\. Step: {step + 1000}\. ")
        trainer.signal(signal.SIGINT)
        assert trainer.wait() == 130, trainer.output
        said = trainer.output
    assert "Traceback" not in said, said
    run = tmp_path / "results" / "ppo"
    losses = [event for event in run_events(run) if event["event"] == "simulator_lost"]
    assert len(losses) == len(worst)
    assert not list(folder.glob("*.bin"))
    assert checkpoint(run, "Scripted")["step"] > 0
    assert [loss["will_restart"] for loss in losses].count(False) == NUM_FINAL
    assert all(len(loss["message"]) < LONGEST_WORDS for loss in losses)


def test_run_goes_on_whatever_a_simulator_says_it_has_played(tmp_path: Path) -> None:
    """One simulator acts for itself; the lives of the other one spoil what they have played."""
    (tmp_path / "lives").mkdir()
    here = Path(__file__).parent
    modules = os.pathsep.join(map(str, (here, here.parent / "compliance")))
    command = f"{sys.executable} {here / 'spoilt_player.py'} --lives {tmp_path / 'lives'}"
    build = tmp_path / "players.x86_64"
    build.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="{modules}:$PYTHONPATH"\n'
        f'exec {command} --env hybrid_env:HybridEnv --behavior Hybrid --num-areas 2 "$@"\n'
    )
    build.chmod(0o755)
    settings = tiny_yaml(tmp_path, name="Hybrid", max_steps=100_000_000, summary_freq=500)
    limits = "max_lifetime_restarts: -1, restarts_rate_limit_n: -1, restart_delay_s: 0"
    settings.write_text(settings.read_text() + f"env_settings: {{act_at: simulator, {limits}}}\n")
    with Trainer("settings.yaml", "--env", build, "--num-envs", 2, cwd=tmp_path) as trainer:
        trainer.wait_for(rf"(?s)(?:Restarting \(\d+\).*?){{{NUM_LIVES}}}")
        step = int((re.findall(r"Hybrid\. Step: (\d+)\. ", trainer.output) or ["0"])[-1])
        trainer.wait_for(rf"Hybrid\. Step: {step // 500 * 500 + 1000}\. ")
        trainer.signal(signal.SIGINT)
        assert trainer.wait() == 130, trainer.output
        said = trainer.output
    assert "Traceback" not in said, said
    losses = [e for e in run_events(tmp_path / "results" / "ppo") if e["event"] == "simulator_lost"]
    assert len(losses) >= NUM_LIVES
    assert all(loss["will_restart"] and len(loss["message"]) < LONGEST_WORDS for loss in losses)
    assert len({loss["message"].split("sent bad data: ")[1][:30] for loss in losses}) > 1
    assert checkpoint(tmp_path / "results" / "ppo", "Hybrid")["step"] > 0
