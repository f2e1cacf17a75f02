"""Every kind of action, mask, sensor, memory and critic together: trained, resumed, exported.

Three agents play two messages' worth of everything that can happen to an episode: it goes on, ends
by the task, or is cut short. Letters: N agents, L sum of branch sizes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sensor_specs import behavior as behavior_spec
from sensor_specs import entities, image, random_obs, vector

from envs.batch import Actions, Decisions, Terminals
from envs.spec import BehaviorSpec, ObservationSpec
from trainer.behavior import Behavior
from trainer.checkpoint import CheckpointStore
from trainer.config.settings import BehaviorSettings
from trainer.export_onnx import export
from trainer.unity_checks import check
from trainer.unity_model import read_model

AGENTS = 3
DECISIONS = 9  # of each agent in a rollout
ACTIONS: dict[str, tuple[int, tuple[int, ...]]] = {
    "continuous": (2, ()),
    "discrete": (0, (3, 2)),
    "hybrid": (1, (4,)),
}
SENSORS: dict[str, tuple[ObservationSpec, ...]] = {
    "vector": (vector(4),),
    "visual": (image(3, 20, 20),),
    "variable": (entities(4, 3),),
    "several": (
        vector(2, "goal", is_goal=True),
        entities(3, 2),
        image(1, 20, 20, dtype="float32"),
        vector(3),
    ),
}
COMBINATIONS = [
    combination
    for combination in itertools.product(
        ACTIONS, (False, True), SENSORS, (False, True), (False, True)
    )
    if combination[0] != "continuous" or not combination[1]  # masks are about branches
]


def name_of(combination: tuple[str, bool, str, bool, bool]) -> str:
    actions, has_masks, sensors, has_memory, is_shared = combination
    words = [actions, "masks" * has_masks, sensors, "memory" * has_memory, "shared" * is_shared]
    return "-".join(filter(None, words))


def build(
    folder: Path,
    spec: BehaviorSpec,
    *,
    has_memory: bool = False,
    is_shared: bool = False,
    state: object = None,
    trainer_type: str = "ppo",
    hyperparameters: Mapping[str, object] | None = None,
    reward: Mapping[str, object] | None = None,
    **network: object,
) -> Behavior:
    torch.set_num_threads(1)
    memory = {"memory_size": 8, "sequence_length": 4} if has_memory else None
    rows = AGENTS * DECISIONS
    if trainer_type == "reinforce":
        rows //= 3  # those of the two episodes that end
    batches = {} if trainer_type == "a2c" else {"batch_size": rows // 2}
    settings = {
        "trainer_type": trainer_type,
        "hyperparameters": {
            **batches,
            "buffer_size": rows,
            "learning_rate": 0.01,
            "shared_critic": is_shared,
            **(hyperparameters or {}),
        },
        "reward_signals": {"extrinsic": dict(reward or {})},
        "network_settings": {
            "hidden_units": 16,
            "num_layers": 1,
            "normalize": True,
            "memory": memory,
            **network,
        },
    }
    return Behavior(
        "Crab",
        spec,
        BehaviorSettings.model_validate(settings),
        folder,
        seed=3,
        device=torch.device("cpu"),
        is_training=True,
        state=state,  # type: ignore[arg-type] # a checkpoint's
        starts_at_zero=False,
    )


def masks_of(spec: BehaviorSpec, chance: np.random.Generator) -> NDArray[np.bool_]:
    """Allows one action of each branch for sure, and about half of the others; (N, L)."""
    parts = []
    for size in spec.action_spec.discrete_branches:
        part = chance.random((AGENTS, size)) < 0.5
        part[np.arange(AGENTS), chance.integers(0, size, AGENTS)] = True
        parts.append(part)
    return np.concatenate(parts, axis=1)


def require_allowed(spec: BehaviorSpec, mask: NDArray[np.bool_], actions: Actions) -> None:
    start = 0
    for k, size in enumerate(spec.action_spec.discrete_branches):
        assert mask[np.arange(AGENTS), start + actions.discrete[:, k]].all()
        start += size


def play(behavior: Behavior, seed: int, *, has_masks: bool) -> list[Actions]:
    """Plays until the step log is full and learns; gives all that the agents did."""
    chance = np.random.default_rng(seed)
    lanes = np.arange(AGENTS)
    zeros = np.zeros(AGENTS, np.int32)
    num_branches = int(sum(behavior.spec.action_spec.discrete_branches))
    done: list[Actions] = []
    for moment in range(DECISIONS + 1):
        obs = [o.numpy() for o in random_obs(behavior.spec, AGENTS, seed=100 * seed + moment)]
        mask = None
        if num_branches:
            full = np.ones((AGENTS, num_branches), np.bool_)
            mask = masks_of(behavior.spec, chance) if has_masks else full
        reward = chance.standard_normal(AGENTS).astype(np.float32)
        words = {"agent_id": zeros, "simulator": zeros, "team": zeros, "group_id": zeros}
        if moment in (3, 6):  # agent 0 ends by the task, then agent 1 is cut short
            one = slice(moment // 3 - 1, moment // 3)
            ended = Terminals(
                obs=tuple(column[one] for column in obs),
                reward=reward[one],
                lane=lanes[one],
                group_reward=np.zeros(1, np.float32),
                truncated=np.array([moment == 6]),
                **{key: column[one] for key, column in words.items()},
            )
            behavior.end([ended])
        asked = Decisions(
            obs=tuple(obs),
            reward=reward,
            lane=lanes,
            group_reward=np.zeros(AGENTS, np.float32),
            action_mask=mask,
            **words,
        )
        (actions,) = behavior.decide([asked])
        if mask is not None:
            require_allowed(behavior.spec, mask, actions)
        done.append(actions)
    assert behavior.is_ready_to_learn
    behavior.learn()
    behavior.begin_anew(lanes)  # the next one begins as after a resume
    return done


@pytest.mark.parametrize("combination", COMBINATIONS, ids=name_of)
def test_combination_is_trained_resumed_and_exported(
    combination: tuple[str, bool, str, bool, bool], tmp_path: Path
) -> None:
    kind, has_masks, sensors, has_memory, is_shared = combination
    continuous, branches = ACTIONS[kind]
    spec = behavior_spec(*SENSORS[sensors], continuous=continuous, branches=branches)
    first = build(tmp_path / "first", spec, has_memory=has_memory, is_shared=is_shared)
    before = {name: weights.clone() for name, weights in first.policy.named_parameters()}
    play(first, 1, has_masks=has_masks)
    still = [n for n, w in first.policy.named_parameters() if torch.equal(w, before[n])]
    assert still == [], "an update moves every part of the networks"

    store = CheckpointStore(tmp_path / "Crab", keep=1)
    store.save(first.state_dict(), first.step, None)
    state, _ = store.load()
    second = build(
        tmp_path / "second", spec, has_memory=has_memory, is_shared=is_shared, state=state
    )
    for one, other in zip(
        play(first, 2, has_masks=has_masks), play(second, 2, has_masks=has_masks), strict=True
    ):
        np.testing.assert_array_equal(one.continuous, other.continuous)
        np.testing.assert_array_equal(one.discrete, other.discrete)
    for name, weights in first.policy.state_dict().items():
        assert torch.equal(weights, second.policy.state_dict()[name]), name

    path = tmp_path / "Crab.onnx"
    export(second.policy, spec, path)  # raises when the file acts differently from the policy
    assert [found for found in check(read_model(path), spec) if found.verdict] == []
    for made in (first, second):
        made.metrics.close()
