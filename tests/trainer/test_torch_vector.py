"""Environments on tensors: what the rollout holds, and a run from end to end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_process import checkpoint, ppo_train, write_yaml

from envs.errors import BadDataError, SimulatorDidNotStartError
from trainer.nn.actor_critic import Action
from trainer.torch_vector.env import make_torch_env, require_shapes, spec_of
from trainer.torch_vector.log import TensorLog, TensorTurn
from trainer.torch_vector.oscillators import Oscillators

CPU = torch.device("cpu")


def turn(step: int, ended: dict[int, str] | None = None) -> TensorTurn:
    """Three agents; agent k sees 100 k + step, is paid that plus 0.5, and had seen -(that) last."""
    numbers = torch.tensor([0.0, 100.0, 200.0]) + step
    ended = ended or {}
    return TensorTurn(
        numbers.unsqueeze(1).repeat(1, 2),
        numbers + 0.5,
        torch.tensor([ended.get(k) == "terminated" for k in range(3)]),
        torch.tensor([ended.get(k) == "truncated" for k in range(3)]),
        -numbers.unsqueeze(1).repeat(1, 2),
    )


def action(step: int) -> Action:
    number = torch.full((3, 1), float(step))
    return Action(number, torch.zeros((3, 0), dtype=torch.int64), -number)


class TwoNumbers(Oscillators):
    def __init__(self) -> None:
        self.num_obs, self.num_actions, self.branches = 2, 1, ()


def filled_log() -> TensorLog:
    log = TensorLog(spec_of(TwoNumbers()), 12, CPU)  # 4 env_steps of 3 agents
    log.hear(TensorTurn(turn(0).obs, None))
    endings: list[dict[int, str]] = [{}, {0: "terminated"}, {1: "truncated"}, {}]
    for step, ended in enumerate(endings):
        log.record_action(action(step))
        assert log.num_complete == 3 * step
        log.hear(turn(step + 1, ended))
    return log


def test_a_rollout_is_cut_where_episodes_end_and_knows_what_follows() -> None:
    log = filled_log()
    assert log.num_complete == 12
    rollout, reward = log.take(time_horizon=1000)
    assert rollout.obs[0][:, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203]
    # The reward of a decision comes with the next env_step.
    assert reward[:4].tolist() == [1.5, 2.5, 3.5, 4.5]
    assert rollout.continuous[:, 0].tolist() == [0, 1, 2, 3] * 3
    assert rollout.log_probs[:, 0].tolist() == [0, -1, -2, -3] * 3
    # Agent 0 terminated with its second decision, agent 1 was truncated with its third.
    assert rollout.segment_starts.tolist() == [0, 2, 4, 7, 8, 12]
    assert rollout.terminated.tolist() == [True, False, False, False, False]
    # Cut: the next observation. Truncated: the last one, not the next episode's first.
    assert rollout.bootstrap_obs[0][1:, 0].tolist() == [4, -103, 104, 204]


def test_the_open_decision_is_the_first_of_the_next_rollout() -> None:
    log = filled_log()
    log.record_action(action(4))
    rollout, _ = log.take(time_horizon=1000)
    before = rollout.obs[0].clone()
    assert log.num_complete == 0
    assert torch.equal(rollout.obs[0], before), "an update may read it until the next decision"
    for step in range(4, 8):
        log.hear(turn(step + 1))
        log.record_action(action(step + 1))
    rollout, reward = log.take(time_horizon=1000)
    assert rollout.obs[0][:4, 0].tolist() == [4, 5, 6, 7]
    assert rollout.continuous[:4, 0].tolist() == [4, 5, 6, 7]
    assert reward[:4].tolist() == [5.5, 6.5, 7.5, 8.5]


def test_time_horizon_cuts_segments() -> None:
    rollout, _ = filled_log().take(time_horizon=2)
    assert rollout.segment_starts.tolist() == [0, 2, 4, 6, 7, 8, 10, 12]
    assert rollout.bootstrap_obs[0][2, 0] == 102, "agent 1 goes on behind its first cut"


def test_episodes_are_summed_up_across_rollouts() -> None:
    log = filled_log()
    returns, lengths = log.finished_episodes()
    assert returns.tolist() == [1.5 + 2.5, 101.5 + 102.5 + 103.5]
    assert lengths.tolist() == [2, 3]
    log.record_action(action(4))
    log.take(1000)
    for step in range(4, 8):
        log.hear(turn(step + 1, {2: "terminated"} if step == 4 else {}))
        log.record_action(action(step + 1))
    log.take(1000)
    returns, lengths = log.finished_episodes()
    assert returns.tolist() == [201.5 + 202.5 + 203.5 + 204.5 + 205.5]
    assert lengths.tolist() == [5]


def test_a_bad_number_is_found_once_per_rollout_and_named() -> None:
    log = filled_log()
    log._columns["rewards"][1, 2] = torch.inf
    with pytest.raises(BadDataError, match=r"agent 1 gave inf in rewards.* 2 env_steps ago"):
        log.take(1000)


def test_oscillators_end_as_the_protocol_says() -> None:
    env = Oscillators(64, CPU, seed=1, num_oscillators=3, max_episode_steps=5)
    seen, ends = env.reset(), 0
    for _ in range(20):
        step = env.step(torch.zeros(64, 3))
        require_shapes(env, step, 64)
        over = step.terminated | step.truncated
        ends += int(over.sum())
        assert torch.equal(step.obs[~over], step.last_obs[~over])
        assert (step.obs[over][:, 3:6] == 0).all(), "an episode begins at rest"
        # Left alone, an oscillator moves towards 0 with the velocity that it has.
        assert torch.allclose(step.last_obs[:, :3], seen[:, :3] + 0.05 * step.last_obs[:, 3:6])
        seen = step.obs
    assert 64 * 4 - 64 <= ends <= 64 * 4 + 64


def test_a_class_that_is_not_there_is_told() -> None:
    with pytest.raises(SimulatorDidNotStartError, match="Did you mean Oscillators"):
        make_torch_env("trainer.torch_vector.oscillators:Oscilators", 4, CPU, 0, {})
    with pytest.raises(SimulatorDidNotStartError, match="names no class"):
        make_torch_env("oscillators", 4, CPU, 0, {})


def settings(folder: Path, **behavior: Any) -> Path:
    hyperparameters: dict[str, Any] = {"batch_size": 512, "buffer_size": 2048, "num_epoch": 4}
    hyperparameters |= {"learning_rate_schedule": "constant", "beta_schedule": "constant"}
    whole = {
        "trainer_type": "ppo",
        "hyperparameters": {**hyperparameters, "learning_rate": 2.0e-3, "beta": 0.0},
        "network_settings": {"hidden_units": 32, "normalize": True},
        "reward_signals": {"extrinsic": {"gamma": 0.95, "strength": 1.0}},
        "max_steps": 60_000,
        "summary_freq": 20_000,
        **behavior,
    }
    env = {"env_path": "torch:trainer.torch_vector.oscillators:Oscillators", "num_envs": 0}
    env |= {"num_areas": 128, "seed": 1, "env_kwargs": {"num_oscillators": 2}}
    document = {"behaviors": {"Oscillators": whole}, "env_settings": env}
    return write_yaml(folder / "settings.yaml", document)


def test_a_run_learns_and_everything_around_it_works(tmp_path: Path) -> None:
    path = settings(tmp_path)
    said = ppo_train(path, "--run-id", "osc", "--torch-device", "cpu", cwd=tmp_path)
    rewards = [float(found) for found in re.findall(r"Mean Reward: ([-\d.]+)\.", said)]
    assert len(rewards) >= 2
    assert rewards[-1] > rewards[0] + 2, said
    assert checkpoint(tmp_path / "results" / "osc", "Oscillators")["step"] >= 60_000
    assert "10 deterministic episodes" in ppo_train(
        "eval", "--run-id", "osc", "--episodes", "10", cwd=tmp_path
    )
    said = ppo_train("check", str(path), "--env", "torch:" + SELF, cwd=tmp_path)
    assert "128 agents of team 0" in said
    settings(tmp_path, max_steps=64_000)
    said = ppo_train(path, "--run-id", "osc", "--resume", cwd=tmp_path)
    assert "Resuming training from step" in said


SELF = "trainer.torch_vector.oscillators:Oscillators"


def test_what_cannot_be_had_is_refused(tmp_path: Path) -> None:
    memory = {"hidden_units": 16, "memory": {"memory_size": 8, "sequence_length": 4}}
    path = settings(tmp_path, network_settings=memory)
    said = ppo_train(path, "--run-id", "m", cwd=tmp_path, exit_code=2)
    assert "network_settings.memory cannot be had" in said
