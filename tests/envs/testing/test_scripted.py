"""Every script does to the fleet what it says it does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from envs.batch import Actions
from envs.errors import (
    BadDataError,
    SimulatorClosedError,
    SimulatorCrashedError,
    SimulatorDidNotStartError,
    SimulatorError,
    SimulatorTimedOutError,
    UnsupportedSpaceError,
    WrongProtocolError,
)
from envs.fleet import Fleet, FleetPlan, LaunchPlan, SimulatorLoss, SimulatorMessage
from envs.testing.scripted import BEHAVIOR, BIG_OBSERVATION, LATE_BEHAVIOR, SCRIPTS

ENDS_BADLY: dict[str, tuple[type[SimulatorError], str]] = {
    "crash-mid-episode": (SimulatorCrashedError, "the simulator's last words"),
    "lost-display": (
        SimulatorCrashedError,
        "exit code 1.*XIO: .* lost it: start Unity",
    ),
    "silent": (SimulatorTimedOutError, "did not answer within 6 s"),
    "garbage": (BadDataError, "40 bytes"),
    "garbage-agents": (BadDataError, "Scripted.team=0"),
    "nan": (BadDataError, "nan"),
    "nan-episodes": (BadDataError, "nan"),
    "infinite-reward": (BadDataError, "reward"),
    "other-shape": (BadDataError, r"\(3,\)"),
    "truncated-image": (BadDataError, "agent 21000, sensor 'camera' .*a truncated PNG"),
    "other-image-size": (BadDataError, "sensor 'camera' .*a PNG of 7 x 8 pixels .* 6 x 8 expected"),
    "wrong-mapping": (BadDataError, r"sensor 'camera' .*channel mapping \[0, 2, 2\] found"),
    "image-turns-raw": (BadDataError, "sensor 'camera': plain numbers found, PNG images expected"),
    "unknown-sensor": (UnsupportedSpaceError, "sensor 'matrix': .*Supported are vectors"),
    "goodbye": (SimulatorClosedError, "goodbye"),
    "wrong-version": (WrongProtocolError, "2.0.0"),
    "exit-code": (SimulatorDidNotStartError, "exit code 9"),
}
GOES_WELL = sorted(SCRIPTS.keys() - ENDS_BADLY.keys() - {"flood"})  # see test_fleet_faults.py


def play(
    script: str, folder: Path, num_messages: int = 12, timeout_wait_s: float = 60.0
) -> list[SimulatorMessage | SimulatorLoss]:
    command = [sys.executable, "-m", "envs.testing.scripted", "--script", script]
    command += ["--exit-code", "9", "--delay-s", "0.5"]
    plan = FleetPlan(
        launch=LaunchPlan(command=tuple(command), kind="gym"),
        timeout_wait_s=timeout_wait_s,
        max_lifetime_restarts=0,
        logs_dir=folder,
    )
    news: list[SimulatorMessage | SimulatorLoss] = []
    with Fleet(plan) as fleet:
        while len(news) < num_messages:
            (item,) = fleet.recv(timeout_s=60)
            news.append(item)
            if isinstance(item, SimulatorLoss):
                break
            answers = {
                name: Actions(np.zeros((len(asked), 1), np.float32), asked.agent_id[:, None] % 3)
                for name, asked in item.decisions.items()
            }
            fleet.send(item.simulator, answers)
    return news


@pytest.mark.parametrize("script", ENDS_BADLY)
def test_misbehaviour_ends_the_simulator_with_its_own_error(script: str, tmp_path: Path) -> None:
    kind, words = ENDS_BADLY[script]
    # Short for the silent one only; a busy machine may need longer to start a process.
    *good, loss = play(script, tmp_path, timeout_wait_s=6.0 if script == "silent" else 60.0)
    assert isinstance(loss, SimulatorLoss)
    assert type(loss.error) is kind
    with pytest.raises(kind, match=f"(?s){words}"):
        raise loss.error
    assert len(good) == (0 if script in {"wrong-version", "exit-code", "unknown-sensor"} else 5)


@pytest.mark.parametrize("script", GOES_WELL)
def test_rare_but_right_behaviour_goes_on(script: str, tmp_path: Path) -> None:
    news = play(script, tmp_path)
    messages = [item for item in news if isinstance(item, SimulatorMessage)]
    assert len(messages) == len(news) == 12, news[-1]
    for step, message in enumerate(messages):
        for name, asked in message.decisions.items():
            agents = asked.reward - step
            np.testing.assert_array_equal(agents % 100, 0)
            np.testing.assert_array_equal(asked.agent_id // 10_000, agents / 100)
            assert name == LATE_BEHAVIOR or script == "big-message" or len(asked) <= 3
    asking = [sum(len(asked) for asked in message.decisions.values()) for message in messages]
    ended = [sum(len(rows) for rows in message.terminals.values()) for message in messages]
    if script == "cameras":
        for step, message in enumerate(messages):
            pixels = message.decisions[BEHAVIOR].obs[1]
            assert pixels.shape == (3, 3, 6, 8)
            assert pixels.max(axis=(1, 2, 3)).tolist() == [step, 100 + step, 200 + step]
            assert pixels.min(axis=(1, 2, 3)).tolist() == [step, 100 + step, 200 + step]
    if script == "late-behavior":
        assert [LATE_BEHAVIOR in message.decisions for message in messages] == [False] * 5 + [
            True
        ] * 7
    elif script == "unsynchronised":  # agents 0, 1, 2 ask at every 2nd, 3rd, 4th env_step
        assert asking == [3, 0, 1, 1, 2, 0, 2, 0, 2, 1, 1, 0]
    elif script == "terminal-with-decision":
        assert ended == [0] * 5 + [3] + [0] * 4 + [3, 0]
        (rows,) = messages[5].terminals.values()
        assert rows.truncated.tolist() == [False, True, False]
    elif script == "big-message":
        assert messages[0].decisions[BEHAVIOR].obs[0].shape == (1, BIG_OBSERVATION)
    else:
        assert (asking, ended) == ([3] * 12, [0] * 12)
